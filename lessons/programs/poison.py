"""A worker that takes PREFETCH messages, and dies of a killer: `python -m lessons.programs.poison QUEUE PREFETCH`.

It acknowledges them together, when it has processed all of them.
"""

from __future__ import annotations

import os
import sys
from signal import SIGKILL
from typing import Any

from kombu import Connection


def main(queue: str, prefetch: int) -> None:
    with Connection(os.environ["AMQP_URL"]) as connection:
        channel = connection.channel()
        channel.basic_qos(0, prefetch, False)  # noqa: FBT003 (py-amqp's signature)
        messages: list[Any] = []
        channel.basic_consume(queue, callback=messages.append)
        while True:
            while len(messages) < prefetch:
                connection.drain_events()
            if any(message.body == "killer" for message in messages):
                os.kill(os.getpid(), SIGKILL)
            channel.basic_ack(messages[-1].delivery_tag, multiple=True)
            messages.clear()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
