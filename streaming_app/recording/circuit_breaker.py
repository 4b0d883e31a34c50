"""The circuit breaker: while it is open, no request waits for the broker. Its events go to the outbox at once.

It opens at the first doubt or missed deadline, also while the publisher thread is stuck in a send. The next confirm
closes it. A connection alone does not: a broker with a memory alarm accepts connections and confirms nothing.
"""

from __future__ import annotations

import threading

import structlog

from service import metrics

log = structlog.get_logger(__name__)


class CircuitBreaker:
    """Whether the broker is in doubt. Logs when that changes. Any thread may call the methods.

    `lock` is the publisher's. A request checks the breaker and joins the queue under this lock. So no request joins
    after the breaker opens, and whoever opens it can store all requests that wait.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self.is_open = False

    def open(self, reason: str) -> None:
        """Let no request wait for the broker from now on."""
        with self._lock:
            if self.is_open:
                return
            self.is_open = True
        log.warning("the broker does not confirm; views go to the outbox", reason=reason)
        metrics.streaming().broker_up.set(0)

    def close(self) -> None:
        """Let requests wait for the broker again."""
        with self._lock:
            if not self.is_open:
                return
            self.is_open = False
        log.info("the broker confirms again")
        metrics.streaming().broker_up.set(1)
