"""A worker that holds HELD messages while it works, and dies of a killer: `python -m lessons.hands.poison QUEUE HELD`.

It acknowledges them together, when all are done.
"""

from __future__ import annotations

import os
import sys
from signal import SIGKILL
from typing import Any

from kombu import Connection


def main(queue: str, held: int) -> None:
    with Connection(os.environ["AMQP_URL"]) as connection:
        channel = connection.channel()
        channel.basic_qos(0, held, False)  # noqa: FBT003 (py-amqp's signature)
        messages: list[Any] = []
        channel.basic_consume(queue, callback=messages.append)
        while True:
            while len(messages) < held:
                connection.drain_events()
            if any(message.body == "killer" for message in messages):
                os.kill(os.getpid(), SIGKILL)
            channel.basic_ack(messages[-1].delivery_tag, multiple=True)
            messages.clear()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
