"""A worker that is killed between its work and its ack: `python -m lessons.programs.acknowledgement early|late`.

It takes the three messages that are in [work]. `early` acknowledges all of them before it stores one. `late` stores the
first before it acknowledges it. Then it prints a line, and waits until it is killed.
"""

from __future__ import annotations

import os
import signal
import sys

import click
from kombu import Connection, Consumer, Message, Producer, Queue


def main() -> None:
    # With confirms, `publish` returns when the broker has the message.
    with Connection(os.environ["AMQP_URL"], transport_options={"confirm_publish": True}) as connection:
        channel, held = connection.channel(), list[Message]()
        Consumer(channel, [Queue("work")], on_message=held.append, prefetch_count=3).consume()
        while len(held) < 3:
            connection.drain_events()
        if sys.argv[1] == "early":
            held[-1].ack(multiple=True)
            Queue("work", channel=channel).queue_declare(passive=True)  # an ack has no answer, but this has
        else:
            Producer(channel).publish(held[0].payload, routing_key="stored")
        click.echo("between the two")
        signal.pause()


main()
