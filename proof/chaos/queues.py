"""What lies in the broker's queues, asked past the proxy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kombu import Connection
from kombu.message import Message
from kombu.transport.base import StdChannel

from flixtrail.local.queue import Queue, QueueAway
from view_events import topology

CONNECT_S = 2
#: A frozen broker takes a connection and says nothing.
ANSWER_S = 5


class Queues:
    """The queues of one stack. Methods raise what a broker raises that is away. For one thread."""

    def __init__(self, broker_url: str, queue: Queue) -> None:
        self._broker_url = broker_url
        self._queue = queue

    def waiting(self) -> int:
        """Messages that workers have still to write: those that wait, and those that a worker holds."""
        with self._channel() as channel:
            alone = topology.ALONE(channel).queue_declare(passive=True).message_count
        figures = self._queue.figures()
        return figures.ready + figures.unacked + int(alone)

    def consumers(self) -> int:
        """Workers that take messages; 0 while nobody can tell."""
        try:
            return self._queue.consumers()
        except QueueAway:
            return 0

    def dead_letters(self) -> list[Message]:
        """All messages in the dead-letter queue. They stay there."""
        found: list[Message] = []
        with self._channel() as channel:
            queue = topology.DEAD_LETTERS(channel)
            while message := queue.get():  # not acknowledged: they go back when the channel is closed
                found.append(message)
        return found

    @contextmanager
    def _channel(self) -> Iterator[StdChannel]:
        options = {"read_timeout": ANSWER_S, "write_timeout": ANSWER_S}
        with (
            Connection(self._broker_url, connect_timeout=CONNECT_S, transport_options=options) as connection,
            connection.channel() as channel,
        ):
            yield channel
