"""Asks RabbitMQ about consumers and waiting messages."""

from __future__ import annotations

from typing import Any

from amqp.exceptions import NotFound
from kombu import Connection

from view_events import topology


class Broker:
    """One connection, kept open between questions."""

    def __init__(self, url: str) -> None:
        self._connection = Connection(url, heartbeat=0)

    def declare_topology(self) -> None:
        """Declare our topology, so that the streaming app finds its queue before any worker has run."""
        with self._connection.channel() as channel:
            for entity in topology.ENTITIES:
                entity(channel).declare()

    def consumers(self, queue: str) -> int:
        return int(self._declared(queue).consumer_count) if self.exists(queue) else 0

    def ready(self, queue: str) -> int:
        """Return the messages that no consumer has."""
        return int(self._declared(queue).message_count) if self.exists(queue) else 0

    def purge(self, queue: str) -> None:
        if self.exists(queue):
            self._connection.default_channel.queue_purge(queue)

    def version(self) -> str:
        self._connection.ensure_connection(max_retries=3)
        return str(self._connection.connection.server_properties["version"])

    def close(self) -> None:
        self._connection.release()

    def exists(self, queue: str) -> bool:
        with self._connection.channel() as channel:
            try:
                channel.queue_declare(queue, passive=True)
            except NotFound:
                return False
        return True

    def _declared(self, queue: str) -> Any:
        return self._connection.default_channel.queue_declare(queue, passive=True)
