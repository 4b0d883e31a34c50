"""Prints each message that arrives, until Ctrl-C: `python -m lessons.programs.hello_receive`."""
# ruff: noqa: T201 (it prints for the reader)

from __future__ import annotations

import os
import sys
from contextlib import suppress

from kombu import Connection, Consumer, Message, Queue


def received(message: Message) -> None:
    print(f"Received: {message.payload}", flush=True)
    message.ack()  # RabbitMQ may forget the message now


queue = Queue(sys.argv[1] if len(sys.argv) > 1 else "hello")
with suppress(KeyboardInterrupt), Connection(os.environ["AMQP_URL"]) as connection:
    Consumer(connection, queue, on_message=received).consume()
    while True:
        connection.drain_events()
