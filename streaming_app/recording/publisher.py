"""The publisher: one thread in each process sends view events to the broker, many requests in one message.

This is group commit. Requests that arrive while a message is in flight, or within 10 ms of the last message, share the
next one. A quiet service sends one event in each task, at once; a busy one sends hundreds.

Events that the broker does not confirm in time go to the outbox. A circuit breaker keeps requests from waiting for a
broker that does not answer: it opens at the first doubt, and the next confirm closes it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Protocol
from uuid import UUID

import structlog

from service import metrics
from streaming_app.recording.errors import BrokerAway, InDoubt, NotAccepted, Refused, Returned
from streaming_app.recording.outbox import Outbox, OutboxMessage
from view_events.event import ViewEvent, by_trace

log = structlog.get_logger(__name__)

#: Seconds, from its arrival, that a request waits for its confirm. A page that reports a view should never notice it.
DEADLINE_S = 0.25
#: Seconds that a request then waits for the outbox. A working disk takes milliseconds.
OUTBOX_DEADLINE_S = 1
#: Events in one message at most. A larger batch gains little, and its redelivery repeats more. One request (up to 1,000
#: events) is never split.
BATCH_EVENTS = 2_000
#: Seconds between two messages while there are events to send. Requests that arrive meanwhile share the next message: a
#: message costs the broker, the worker and the database a millisecond each, with one event or with fifty. After a
#: pause, the first message does not wait.
PACE_S = 0.01
#: Events that may wait. At 250 ms per request, more than this cannot be sent in time anyway.
WAITING_EVENTS = 50_000
#: Seconds between two checks of the connection while the thread is idle.
IDLE_S = 0.5
#: Seconds between two attempts to connect, and after a message from the outbox that was not confirmed.
RETRY_S = 0.5


class Link(Protocol):
    """What the publisher needs of a connection to the broker. `broker.BrokerLink` is the real one."""

    @property
    def connected(self) -> bool: ...
    def connect(self) -> None: ...
    def send(self, events: Sequence[ViewEvent]) -> str: ...
    def check(self) -> None: ...
    def discard(self) -> None: ...


@dataclass(slots=True)
class _Waiting:
    """The events of one request, on their way."""

    events: Sequence[ViewEvent]
    deadline: float
    #: Ends with None when the events are safe: with the broker or in the outbox. Otherwise with NotAccepted.
    safe: Future[None] = field(default_factory=Future)
    #: Whether the events are on their way to the outbox.
    storing: bool = False

    def end(self, error: BaseException | None = None) -> None:
        """End the wait. The first call counts: if both broker and outbox took the events, they were safe with the
        first.
        """
        with suppress(InvalidStateError):
            if error is None:
                self.safe.set_result(None)
            else:
                self.safe.set_exception(error)


class Publisher:
    """Sends events to the broker or to the outbox, and says when they are safe there.

    Call `start` after the process has forked, because connections, files and threads do not survive a fork.
    """

    def __init__(self, link: Link, outbox: Outbox, *, clock: Callable[[], float] = monotonic) -> None:
        self._link = link
        self._outbox = outbox
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._count = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._open = False  # the circuit breaker: while it is open, no request waits for the broker
        self._drain_at = 0.0
        self._sent_at = float("-inf")
        #: Number of messages that the broker has confirmed. The second value: that number at the last refusal.
        #: `_refused`: that number when a single event was first refused, by event id.
        self._confirms = self._confirms_at_refusal = 0
        self._refused: dict[UUID, int] = {}
        self._refusal = ""
        self._begun = False
        self._away_because = ""
        #: For the timekeeper: requests that wait for a confirm, and requests that wait for the outbox, by deadline.
        self._sending: deque[_Waiting] = deque()
        self._storing: deque[tuple[float, _Waiting, Future[None]]] = deque()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._timekeeper = threading.Thread(target=self._keep_time, name="timekeeper", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the broker confirms messages, as far as is known."""
        return self._link.connected and not self._open

    @property
    def ready(self) -> bool:
        """Whether events can be accepted: by the broker or the outbox."""
        return self.connected or self._outbox.usable

    def start(self) -> None:
        """Open the outbox, and start the threads that publish and that watch the deadlines."""
        self._outbox.open()
        self._thread.start()
        self._timekeeper.start()

    def stop(self, timeout_s: float = 5) -> None:
        """Send the waiting events, then close the connection. Events in the outbox stay there, for another process."""
        with self._changed:
            self._stopping = True
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
        waiting = _Waiting(events, deadline=self._clock() + DEADLINE_S)
        with self._changed:
            wanted = self.connected and not self._stopping and self._count + len(events) <= WAITING_EVENTS
            if wanted:
                self._waiting.append(waiting)
                self._count += len(events)
                self._in_time(waiting)
                # Wake the publisher for the first request and for a full batch only. For others it would wake up too
                # early.
                if len(self._waiting) == 1 or self._is_full():
                    self._changed.notify()
        if not wanted:
            self._store(waiting)
        return waiting.safe

    def _store(self, waiting: _Waiting) -> None:
        """Store the events of a request in the outbox, once. The outbox has a deadline of its own."""
        with self._changed:
            if waiting.storing:
                return
            waiting.storing = True
        # If the message arrives after all, these events arrive twice. That is harmless: their ids are unique.
        stored = self._outbox.put(waiting.events)
        self._storing.append((self._clock() + OUTBOX_DEADLINE_S, waiting, stored))

        def told(done: Future[None]) -> None:
            if not done.cancelled():
                waiting.end(done.exception())

        stored.add_done_callback(told)

    # -- deadlines --------------------------------------------------------------------------------------

    def _in_time(self, waiting: _Waiting) -> None:
        """Watch the deadline of a request. The caller holds `_changed`."""
        while self._sending and self._sending[0].safe.done():
            self._sending.popleft()
        self._sending.append(waiting)

    def _keep_time(self) -> None:
        """Run the timekeeper thread.

        All requests wait equally long, so the oldest is due first. A request that arrives while the thread sleeps is
        due after the thread wakes, so no request has to wake it.
        """
        while self._sending or self._storing or not self._stopping:
            sleep(self._look_at_deadlines())

    def _look_at_deadlines(self) -> float:
        """Move overdue requests on. Returns the seconds until the next look."""
        overdue: list[_Waiting] = []
        with self._changed:
            while self._sending and (self._sending[0].safe.done() or self._sending[0].deadline <= self._clock()):
                overdue.append(self._sending.popleft())
            wait_s = self._sending[0].deadline - self._clock() if self._sending else DEADLINE_S
        for waiting in overdue:
            if not waiting.safe.done() and not waiting.storing:
                self._break("no confirm in time")
                self._store(waiting)
        while self._storing and (self._storing[0][2].done() or self._storing[0][0] <= self._clock()):
            _, waiting, stored = self._storing.popleft()
            if not stored.done():
                stored.cancel()  # if the disk hangs, the events must not pile up in memory
                self._outbox.usable = False
                waiting.end(NotAccepted("the outbox did not commit it in time"))
        if self._storing:
            wait_s = min(wait_s, self._storing[0][0] - self._clock())
        return max(wait_s, 0)

    # -- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                if not self._turn():
                    break
            except Exception:  # the thread must survive any error: without it, nothing would be sent any more
                log.exception("the publisher failed, and goes on")
                self._link.discard()
                self._drain_at = self._clock() + RETRY_S
        self._link.discard()

    def _turn(self) -> bool:
        """Send the next message, and one from the outbox. Returns False when the thread should end."""
        if not self._begun:
            self._begun = True
            self._look_after_link()
        batch = self._take()
        if batch is None:
            return False
        if batch:
            self._send(batch)
        else:
            self._look_after_link()
        # After every message of fresh events, one of old events. So neither has to wait for all of the other.
        self._outbox.adopt_and_sweep()
        self._drain()
        return True

    def _take(self) -> list[_Waiting] | None:
        """Return the next batch: at most BATCH_EVENTS, or one request. [] if there is nothing to send; None to end the
        thread.
        """
        with self._changed:
            if not self._waiting and not self._stopping and not self._can_drain():
                self._changed.wait(IDLE_S if self._link.connected else RETRY_S)
            if not self._waiting:
                return None if self._stopping else []
            self._changed.wait_for(self._is_full, timeout=self._sent_at + PACE_S - self._clock())
            self._sent_at = self._clock()
            batch: list[_Waiting] = []
            size = 0
            while self._waiting and (not batch or size + len(self._waiting[0].events) <= BATCH_EVENTS):
                waiting = self._waiting.popleft()
                self._count -= len(waiting.events)
                # After its deadline, a request has gone to the outbox already.
                if waiting.deadline > self._clock():
                    batch.append(waiting)
                    size += len(waiting.events)
            return batch

    def _is_full(self) -> bool:
        return self._count >= BATCH_EVENTS or self._stopping

    def _send(self, batch: list[_Waiting]) -> None:
        def safe() -> None:
            for waiting in batch:
                waiting.end()

        doubt = self._confirmed([event for waiting in batch for event in waiting.events], safe)
        if doubt is not None:
            self._store_all(batch)
            self._look_after_link(quietly=isinstance(doubt, Refused))

    def _can_drain(self) -> bool:
        return self._link.connected and self._outbox.events > 0 and self._clock() >= self._drain_at

    def _drain(self) -> None:
        """Send the oldest events of the outbox as one message."""
        if not self._link.connected or self._clock() < self._drain_at:
            return
        try:
            message = self._outbox.oldest(BATCH_EVENTS)
        except sqlite3.Error as error:
            log.warning("the outbox cannot be read", reason=str(error))
            self._drain_at = self._clock() + IDLE_S
            return
        if message is None:
            self._drain_at = self._clock() + IDLE_S
            self._close_breaker()  # no event to test the broker with, so the next request tests it
        elif doubt := self._confirmed(message.events, lambda: self._outbox.done(message), from_outbox=True):
            self._drain_at = self._clock() + RETRY_S
            if isinstance(doubt, Refused):
                self._sort_out(message, str(doubt))
            self._look_after_link(quietly=isinstance(doubt, Refused))

    def _sort_out(self, message: OutboxMessage, reason: str) -> None:
        """Find the events that the broker refuses for good. Each turn tries one message; fresh events are sent in
        between.

        An event is put aside only if other messages have been confirmed since. Otherwise the event may not be the
        cause.
        """
        event_id = message.events[0].event_id
        for_good = False
        if len(message.events) == 1:
            for_good = self._confirms > self._refused.setdefault(event_id, self._confirms)
        try:
            if for_good:
                self._outbox.put_aside(message, reason)
            else:
                self._outbox.split(message)
        except sqlite3.Error as error:
            log.warning("the outbox cannot be changed", reason=str(error))
            return
        if for_good:
            del self._refused[event_id]
        if self._confirms > self._confirms_at_refusal:
            self._drain_at = 0
        self._confirms_at_refusal = self._confirms

    def _confirmed(
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
            self._break(str(doubt))
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
        self._close_breaker()
        return None

    def _store_waiting(self) -> None:
        """Store all waiting requests in the outbox, because the connection is gone."""
        with self._changed:
            waiting, self._waiting, self._count = self._waiting, deque(), 0
        self._store_all(waiting)

    def _store_all(self, waiting: Iterable[_Waiting]) -> None:
        for one in waiting:
            self._store(one)

    # -- the breaker ------------------------------------------------------------------------------------

    def _break(self, reason: str) -> None:
        with self._changed:
            if self._open:
                return
            self._open = True
        log.warning("the broker does not confirm; views go to the outbox", reason=reason)
        metrics.streaming().broker_up.set(0)

    def _close_breaker(self) -> None:
        with self._changed:
            if not self._open:
                return
            self._open = False
        log.info("the broker confirms again")
        metrics.streaming().broker_up.set(1)

    def _say_away(self, reason: str) -> None:
        """Log why the broker cannot be reached. Logged once, and again when the reason changes."""
        if reason != self._away_because:
            log.warning("the broker cannot be reached; views go to the outbox", reason=reason)
        self._away_because = reason

    def _look_after_link(self, *, quietly: bool = False) -> None:
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
            self._look_after_link()
        except BrokerAway as away:
            self._say_away(str(away))
        metrics.streaming().broker_up.set(self.connected)
