"""Sends one message and ends: `python -m lessons.programs.hello_send Hello`. AMQP_URL is the broker's address."""
# ruff: noqa: T201 (it prints for the reader)

from __future__ import annotations

import os
import sys

from kombu import Connection, Producer, Queue

with Connection(os.environ["AMQP_URL"]) as connection:
    channel = connection.channel()
    Queue("hello", channel=channel).declare()  # RabbitMQ creates the queue if it does not exist yet
    Producer(channel).publish(sys.argv[1], routing_key="hello")
    print(f"Sent: {sys.argv[1]}")
