"""Reads the broker's queues, without going through the proxy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kombu import Connection
from kombu.message import Message
from kombu.transport.base import StdChannel

from local.errors import BrokerUnreachable
from local.queue import Queue
from proof.chaos.errors import UnexpectedDeadLetters
from view_events import topology

CONNECT_S = 2
#: A frozen broker accepts a connection and does not answer.
ANSWER_S = 5


class Queues:
    """The queues of one stack. If the broker is away, methods raise its error. For one thread."""

    def __init__(self, broker_url: str, queue: Queue) -> None:
        self._broker_url = broker_url
        self._queue = queue

    def waiting(self) -> int:
        """Return the messages that must still be written: those that wait, and those that a worker has not
        acknowledged.
        """
        figures = self._queue.figures()
        waiting = figures.ready + figures.unacked
        if topology.is_amqp(self._broker_url):
            with self._channel() as channel:
                waiting += topology.ALONE(channel).queue_declare(passive=True).message_count
        return waiting

    def consumers(self) -> int:
        """Return how many workers consume messages; 0 if it is unknown."""
        try:
            return self._queue.consumers()
        except BrokerUnreachable:
            return 0

    def dead_letters(self) -> list[Message]:
        """Return all messages in the dead-letter queue. They stay there.

        In learner mode there must be none: raises UnexpectedDeadLetters.
        """
        found: list[Message] = []
        if not topology.is_amqp(self._broker_url):
            if dead := self._queue.figures().dead:
                raise UnexpectedDeadLetters(f"{dead} dead letters, and no poison was sent")
            return found
        with self._channel() as channel:
            queue = topology.DEAD_LETTERS(channel)
            while message := queue.get():  # not acknowledged: they are requeued when the channel is closed
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
