"""The deadlines of requests. A request waits for the broker's confirm, then for the outbox, then it is not accepted.

If no confirm comes within DEADLINE_S, the events go to the outbox. If the outbox does not store them within
OUTBOX_DEADLINE_S, the request is answered with 503. So no request waits longer, whatever hangs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from time import sleep

from streaming_app.recording.circuit_breaker import CircuitBreaker
from streaming_app.recording.errors import NotAccepted
from streaming_app.recording.outbox import Outbox
from streaming_app.recording.pending_request import PendingRequest

#: Seconds, from its arrival, that a request waits for its confirm. A page that reports a view should never notice it.
DEADLINE_S = 0.25
#: Seconds that a request then waits for the outbox. A working disk takes milliseconds.
OUTBOX_DEADLINE_S = 1


class Deadlines:
    """Watches the deadlines of all requests, in one thread.

    All requests wait equally long, so the oldest is due first. A request that arrives while the thread sleeps is due
    after the thread wakes, so no request has to wake it.

    `lock` is the publisher's (see `CircuitBreaker`).
    """

    def __init__(
        self, outbox: Outbox, breaker: CircuitBreaker, lock: threading.RLock, clock: Callable[[], float]
    ) -> None:
        self._outbox = outbox
        self._breaker = breaker
        self._lock = lock
        self._clock = clock
        self._stopping = False
        #: Requests that wait for a confirm, by deadline. Changed under the lock.
        self._unconfirmed: deque[PendingRequest] = deque()
        #: Requests that wait for a commit of the outbox, by deadline. Any thread appends; only this one removes.
        self._uncommitted: deque[tuple[float, PendingRequest, Future[None]]] = deque()
        self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end as soon as no request waits. The caller has the lock."""
        self._stopping = True

    def watch(self, request: PendingRequest) -> None:
        """Watch a request that waits for its confirm. The caller has the lock."""
        while self._unconfirmed and self._unconfirmed[0].safe.done():
            self._unconfirmed.popleft()
        self._unconfirmed.append(request)

    def store(self, request: PendingRequest) -> None:
        """Store the events of a request in the outbox, once. From now on, the outbox's deadline counts."""
        with self._lock:
            if request.storing:
                return
            request.storing = True
        # If the message arrives after all, these events arrive twice. That is harmless: their ids are unique.
        stored = self._outbox.put(request.events)
        self._uncommitted.append((self._clock() + OUTBOX_DEADLINE_S, request, stored))

        def ended(done: Future[None]) -> None:
            if not done.cancelled():
                request.end(done.exception())

        stored.add_done_callback(ended)

    def _run(self) -> None:
        while self._unconfirmed or self._uncommitted or not self._stopping:
            sleep(self._end_overdue())

    def _end_overdue(self) -> float:
        """Move overdue requests on. Returns the seconds until the next deadline."""
        overdue: list[PendingRequest] = []
        with self._lock:
            while self._unconfirmed and (
                self._unconfirmed[0].safe.done() or self._unconfirmed[0].deadline <= self._clock()
            ):
                overdue.append(self._unconfirmed.popleft())
            wait_s = self._unconfirmed[0].deadline - self._clock() if self._unconfirmed else DEADLINE_S
        for request in overdue:
            if not request.safe.done() and not request.storing:
                self._breaker.open("no confirm in time")
                self.store(request)
        while self._uncommitted and (self._uncommitted[0][2].done() or self._uncommitted[0][0] <= self._clock()):
            _, request, stored = self._uncommitted.popleft()
            if not stored.done():
                stored.cancel()  # if the disk hangs, the events must not pile up in memory
                self._outbox.usable = False
                request.end(NotAccepted("the outbox did not commit it in time"))
        if self._uncommitted:
            wait_s = min(wait_s, self._uncommitted[0][0] - self._clock())
        return max(wait_s, 0)
