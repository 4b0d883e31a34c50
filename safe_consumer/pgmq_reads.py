"""Remembers which messages a worker has read in learner mode.

pgmq hides a message that was read, but does not store which worker read it. So each worker remembers what it read last,
and answers with it at `/held` (safe_consumer/monitoring.py).
"""

from __future__ import annotations

from collections import deque
from typing import Any

#: More than a worker can have unacknowledged (ten at once: celeryconfig.py) plus what it has acknowledged since.
REMEMBERED = 100
#: pgmq's ids of the messages that this worker read last.
READ: deque[int] = deque(maxlen=REMEMBERED)


def remember_reads() -> None:
    """Record every read from now on. Call it before the worker connects."""
    from kombu.transport import pgmq

    receive = pgmq.Channel._receive_messages  # noqa: SLF001 (the one place through which every message comes)

    def receive_and_remember(channel: Any, *args: Any, **options: Any) -> list[Any]:
        messages: list[Any] = receive(channel, *args, **options)
        READ.extend(message.msg_id for message in messages)
        return messages

    pgmq.Channel._receive_messages = receive_and_remember  # noqa: SLF001
