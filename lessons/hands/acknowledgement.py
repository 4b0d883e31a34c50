"""A worker to be killed between work and answer: `python -m lessons.hands.acknowledgement early|late`.

Takes the three messages that are in [work]. `early` acknowledges all of them, and would store them then. `late` stores
the first, and would acknowledge it then. It says so, and waits for its end.
"""

from __future__ import annotations

import os
import signal
import sys

import click
from kombu import Connection, Consumer, Message, Producer, Queue


def main() -> None:
    # With confirms: what is published here is with the broker when it goes on.
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
