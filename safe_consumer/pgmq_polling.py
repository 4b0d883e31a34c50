"""Runs pgmq on the worker's event loop, so that learner mode has the same pool of processes as RabbitMQ.

Without an event loop, Celery's pool gives its processes one pipe to read from, and a lock. A process that waits for
work has that lock. If it is killed with -9, it never releases the lock, and no other process gets work again.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, pgmq

#: Seconds between two polls of PostgreSQL: while messages come, and while there are none.
BUSY_S = 0.02
IDLE_S = 0.2
#: Reads in one turn of the event loop. Each returns at most 10 messages.
READS = 10


class Transport(pgmq.Transport):  # type: ignore[misc]
    """Polls for messages by a timer instead of waiting for them."""

    implements = pgmq.Transport.implements.extend(asynchronous=True)

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        self._poll_at = 0.0

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        loop.call_repeatedly(BUSY_S, self.poll, connection)

    def poll(self, connection: Any) -> None:
        """Deliver waiting messages, at most as many as the prefetch allows. Raises the transport's errors."""
        if monotonic() < self._poll_at:
            return
        for _ in range(READS):
            if not self._wanted():
                return
            try:
                self.drain_events(connection, timeout=0)
            except TimeoutError:
                break
        else:
            return
        self._poll_at = monotonic() + IDLE_S

    def _wanted(self) -> bool:
        """Return whether there is a consumer whose prefetch allows another message."""
        return any(channel._consumers and channel.qos.can_consume() for channel in self.channels)  # noqa: SLF001


def use() -> None:
    """Make this the transport of all `pgmq://...` connections of this process."""
    TRANSPORT_ALIASES["pgmq"] = f"{__name__}:Transport"
