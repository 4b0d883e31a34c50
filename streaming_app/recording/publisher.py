"""The publisher: one thread in each process sends view events to the broker, many requests in one message.

This is group commit. Requests that arrive while a message is in flight share the next one. Under load, requests that
arrive within 10 ms of the last message do so, too. A quiet service sends one event in each task, at once; a busy one
sends hundreds.

Events that the broker does not confirm in time (`deadlines`) go to the outbox, and are sent from there later
(`outbox_drain`). A circuit breaker (`circuit_breaker`) keeps requests from waiting for a broker that does not answer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Protocol

import structlog

from service import metrics
from streaming_app.recording import deadlines
from streaming_app.recording.circuit_breaker import CircuitBreaker
from streaming_app.recording.errors import BrokerAway, InDoubt, Refused, Returned
from streaming_app.recording.outbox import Outbox
from streaming_app.recording.outbox_drain import OutboxDrain
from streaming_app.recording.pending_request import PendingRequest
from view_events.event import ViewEvent, by_trace

log = structlog.get_logger(__name__)

#: Events in one message at most. A larger batch gains little, and its redelivery repeats more. One request (up to 1,000
#: events) is never split.
BATCH_EVENTS = 2_000
#: Seconds between two messages under load. Requests that arrive meanwhile share the next message: a message costs the
#: broker, the worker and the database a millisecond each, with one event or with fifty.
PACE_S = 0.01
#: It is load if so many requests per second come, counted over LOAD_WINDOW_S: four in PACE_S. With fewer there is
#: hardly anything to gather, and a request would wait for nothing.
LOAD_REQUESTS_PER_S = 400
LOAD_WINDOW_S = 0.1
#: Events that may wait. At 250 ms per request, more than this cannot be sent in time anyway.
WAITING_EVENTS = 50_000
#: Seconds between two checks of the connection while the thread is idle.
IDLE_S = 0.5
#: Seconds between two attempts to connect.
RETRY_S = 0.5


class Link(Protocol):
    """What the publisher needs of a connection to the broker. `broker.BrokerLink` is the real one."""

    @property
    def connected(self) -> bool: ...
    def connect(self) -> None: ...
    def send(self, events: Sequence[ViewEvent]) -> str: ...
    def check(self) -> None: ...
    def discard(self) -> None: ...


class Publisher:
    """Sends events to the broker or to the outbox, and says when they are safe there.

    Call `start` after the process has forked, because connections, files and threads do not survive a fork.
    """

    def __init__(self, link: Link, outbox: Outbox, *, clock: Callable[[], float] = monotonic) -> None:
        self._link = link
        self._outbox = outbox
        self._clock = clock
        #: One lock for all: the requests that wait, the circuit breaker and the deadlines change together.
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._waiting: deque[PendingRequest] = deque()
        self._count = 0
        self._stopping = False
        self._breaker = CircuitBreaker(lock)
        self._deadlines = deadlines.Deadlines(outbox, self._breaker, lock, clock)
        self._drain = OutboxDrain(outbox, self._breaker, clock)
        self._sent_at = float("-inf")
        self._under_load = False
        self._window_at, self._window_requests = clock(), 0
        self._confirms = 0
        self._refusal = ""
        self._begun = False
        self._away_because = ""
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the broker confirms messages, as far as is known."""
        return self._link.connected and not self._breaker.is_open

    @property
    def ready(self) -> bool:
        """Whether events can be accepted: by the broker or the outbox."""
        return self.connected or self._outbox.usable

    def start(self) -> None:
        """Open the outbox, and start the threads that publish and that watch the deadlines."""
        self._outbox.open()
        self._thread.start()
        self._deadlines.start()

    def stop(self, timeout_s: float = 5) -> None:
        """Send the waiting events, then close the connection. Events in the outbox stay there, for another process."""
        with self._changed:
            self._stopping = True
            self._deadlines.stop()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if not self._thread.is_alive():  # otherwise the thread may be reading the outbox
            self._outbox.close()

    def publish(self, events: Sequence[ViewEvent]) -> None:
        """Publish these events and return when they are safe. Raises NotAccepted, like the future of `submit`."""
        self.submit(events).result()

    def submit(self, events: Sequence[ViewEvent]) -> Future[None]:
        """Publish these events without waiting. The future ends with None when they are safe: confirmed by the broker,
        or committed to the outbox. Otherwise it ends with NotAccepted. It ends within DEADLINE_S + OUTBOX_DEADLINE_S in
        any case.
        """
        request = PendingRequest(events, deadline=self._clock() + deadlines.DEADLINE_S)
        with self._changed:
            wanted = self.connected and not self._stopping and self._count + len(events) <= WAITING_EVENTS
            if wanted:
                self._waiting.append(request)
                self._count += len(events)
                self._deadlines.watch(request)
                # Wake the publisher for the first request and for a full batch only. For others it would wake up too
                # early.
                if len(self._waiting) == 1 or self._is_full():
                    self._changed.notify()
        if not wanted:
            self._deadlines.store(request)
        return request.safe

    # -- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                if not self._send_next():
                    break
            except Exception:  # the thread must survive any error: without it, nothing would be sent any more
                log.exception("the publisher failed, and goes on")
                self._link.discard()
                self._drain.pause()
        self._link.discard()

    def _send_next(self) -> bool:
        """Send the next message, and one from the outbox. Returns False when the thread should end."""
        if not self._begun:
            self._begun = True
            self._check_connection()
        batch = self._next_batch()
        if batch is None:
            return False
        if batch:
            self._send_batch(batch)
        else:
            self._check_connection()
        # After every message of fresh events, one of old events. So neither has to wait for all of the other.
        self._outbox.adopt_and_sweep()
        self._send_from_outbox()
        return True

    def _next_batch(self) -> list[PendingRequest] | None:
        """Return the next batch: at most BATCH_EVENTS, or one request. [] if there is nothing to send; None to end the
        thread.
        """
        with self._changed:
            if not self._waiting and not self._stopping and not (self._link.connected and self._drain.is_due()):
                self._changed.wait(IDLE_S if self._link.connected else RETRY_S)
            if not self._waiting:
                return None if self._stopping else []
            if self._under_load:
                self._changed.wait_for(self._is_full, timeout=self._sent_at + PACE_S - self._clock())
            self._sent_at = self._clock()
            batch: list[PendingRequest] = []
            size = 0
            while self._waiting and (not batch or size + len(self._waiting[0].events) <= BATCH_EVENTS):
                request = self._waiting.popleft()
                self._count -= len(request.events)
                # After its deadline, a request has gone to the outbox already.
                if request.deadline > self._clock():
                    batch.append(request)
                    size += len(request.events)
            self._measure_load(len(batch))
            return batch

    def _measure_load(self, requests: int) -> None:
        """Count the requests of a message, and find out at the end of each window whether there is load."""
        self._window_requests += requests
        window_s = self._clock() - self._window_at
        if window_s >= LOAD_WINDOW_S:
            self._under_load = self._window_requests >= LOAD_REQUESTS_PER_S * window_s
            self._window_at, self._window_requests = self._clock(), 0

    def _is_full(self) -> bool:
        return self._count >= BATCH_EVENTS or self._stopping

    def _send_batch(self, batch: list[PendingRequest]) -> None:
        def safe() -> None:
            for request in batch:
                request.end()

        doubt = self._send([event for request in batch for event in request.events], safe)
        if doubt is not None:
            self._store_all(batch)
            self._check_connection(quietly=isinstance(doubt, Refused))

    def _send_from_outbox(self) -> None:
        """Send the oldest events of the outbox as one message."""
        if not self._link.connected:
            return
        message = self._drain.next_message(BATCH_EVENTS)
        if message is None:
            return
        doubt = self._send(message.events, lambda: self._outbox.done(message), from_outbox=True)
        if doubt is not None:
            self._drain.not_confirmed(message, doubt, self._confirms)
            self._check_connection(quietly=isinstance(doubt, Refused))

    def _send(
        self, events: Sequence[ViewEvent], safe: Callable[[], None], *, from_outbox: bool = False
    ) -> InDoubt | None:
        """Send one message and call `safe` as soon as it is confirmed. Otherwise return the doubt; the connection is
        then closed.
        """
        started = self._clock()
        try:
            task_id = self._link.send(events)
        except Refused as refused:
            metrics.streaming().messages.labels("refused").inc()
            if str(refused) != self._refusal:  # logged once, not for each message that it takes to find the event
                self._refusal = str(refused)
                log.warning("the broker refuses a message; its views go to the outbox one by one", reason=self._refusal)
            return refused
        except InDoubt as doubt:
            metrics.streaming().messages.labels("returned" if isinstance(doubt, Returned) else "in_doubt").inc()
            self._breaker.open(str(doubt))
            self._store_waiting()
            return doubt
        ms = round((self._clock() - started) * 1000, 1)
        self._confirms += 1
        safe()  # first, because requests wait for it
        metrics.streaming().messages.labels("confirmed").inc()
        metrics.streaming().message_events.observe(len(events))
        log.info(
            "published",
            events=len(events),
            ms=ms,
            task_id=task_id,
            from_outbox=from_outbox,
            views=by_trace(events),
        )
        self._breaker.close()
        return None

    def _store_waiting(self) -> None:
        """Store all waiting requests in the outbox, because the connection is gone."""
        with self._changed:
            waiting, self._waiting, self._count = self._waiting, deque(), 0
        self._store_all(waiting)

    def _store_all(self, requests: Iterable[PendingRequest]) -> None:
        for request in requests:
            self._deadlines.store(request)

    # -- the connection ---------------------------------------------------------------------------------

    def _check_connection(self, *, quietly: bool = False) -> None:
        """Check the connection: notice that the broker is gone, or connect again. Logs each change once."""
        was = self._link.connected
        try:
            if was:
                self._link.check()
            else:
                self._link.connect()
                if not quietly:
                    log.info("broker reached")
                self._away_because = ""
        except InDoubt as doubt:
            log.warning("broker lost", reason=str(doubt))
            self._store_waiting()
            self._check_connection()
        except BrokerAway as away:
            self._log_away(str(away))
        metrics.streaming().broker_up.set(self.connected)

    def _log_away(self, reason: str) -> None:
        """Log why the broker cannot be reached. Logged once, and again when the reason changes."""
        if reason != self._away_because:
            log.warning("the broker cannot be reached; views go to the outbox", reason=reason)
        self._away_because = reason
