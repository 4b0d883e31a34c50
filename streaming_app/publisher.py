"""The publisher: one thread a process that carries view events to the broker, many requests in one message.

Group commit: what arrives while one message is in flight travels together in the next. A quiet service sends one event
a task, a busy one hundreds, and nobody waits for a timer.

What the broker does not confirm in time goes to the outbox. A circuit breaker keeps requests from waiting for a broker
that is known not to answer: it opens at the first doubt, and the next confirm closes it.
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

import structlog

from streaming_app.errors import BrokerAway, InDoubt, NotAccepted, Returned
from streaming_app.outbox import Outbox
from view_events import metrics
from view_events.event import ViewEvent, by_trace

log = structlog.get_logger(__name__)

#: How long a request waits for its confirm, from its arrival. A page that reports a view should never feel it.
DEADLINE_S = 0.25
#: How long it then waits for the outbox. A disk takes milliseconds; one that takes a second will not do.
OUTBOX_DEADLINE_S = 1
#: Events in one message at the most. Past this a bigger batch gains little, and a redelivery repeats more. One request
#: (up to 1,000 events) is never split.
BATCH_EVENTS = 2_000
#: From one message to the next, while there is anything to send. What comes meanwhile travels together: a message costs
#: broker, worker and database a millisecond each, with one event or with fifty. The first after a pause does not wait.
PACE_S = 0.01
#: Events that may wait. At 250 ms a request, more than this cannot be sent in time anyway.
WAITING_EVENTS = 50_000
#: How often the idle thread looks whether the broker has gone.
IDLE_S = 0.5
#: Pause between attempts to reach a broker that is away, and after a message from the outbox that was not confirmed.
RETRY_S = 0.5


class Link(Protocol):
    """What the publisher needs of the broker; `broker.BrokerLink` is the real one."""

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
    #: Ends with None once they are safe, with the broker or in the outbox; else with NotAccepted.
    safe: Future[None] = field(default_factory=Future)
    #: Whether they are on their way to the outbox.
    storing: bool = False

    def end(self, error: BaseException | None = None) -> None:
        """The first end counts: what both broker and outbox took was safe with the first."""
        with suppress(InvalidStateError):
            if error is None:
                self.safe.set_result(None)
            else:
                self.safe.set_exception(error)


class Publisher:
    """Hands events to the broker, or to the outbox, and says when they are safe there.

    `start` it after the process has forked: connections, files and threads do not survive a fork.
    """

    def __init__(self, link: Link, outbox: Outbox, *, clock: Callable[[], float] = monotonic) -> None:
        self._link = link
        self._outbox = outbox
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._count = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._open = False  # the breaker: while it is open, no request waits for the broker
        self._drain_at = 0.0
        self._sent_at = float("-inf")
        self._begun = False
        #: For the timekeeper: what is to be confirmed, and what is to be stored, in the order of their deadlines.
        self._sending: deque[_Waiting] = deque()
        self._storing: deque[tuple[float, _Waiting, Future[None]]] = deque()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._timekeeper = threading.Thread(target=self._keep_time, name="timekeeper", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the broker confirms, as far as is known."""
        return self._link.connected and not self._open

    @property
    def ready(self) -> bool:
        """Whether events can be accepted: through the broker or the outbox."""
        return self.connected or self._outbox.usable

    def start(self) -> None:
        self._outbox.open()
        self._thread.start()
        self._timekeeper.start()

    def stop(self, timeout_s: float = 5) -> None:
        """Send what waits, then close the connection. What lies in the outbox stays there, for another process."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if not self._thread.is_alive():  # else it may be reading the outbox
            self._outbox.close()

    def publish(self, events: Sequence[ViewEvent]) -> None:
        """Return once these events are safe. Raises NotAccepted, like the future of `submit`."""
        self.submit(events).result()

    def submit(self, events: Sequence[ViewEvent]) -> Future[None]:
        """Put events on their way. The future ends with None once they are safe: confirmed by the broker, or committed
        to the outbox. Else with NotAccepted; and within DEADLINE_S + OUTBOX_DEADLINE_S in any case.
        """
        waiting = _Waiting(events, deadline=self._clock() + DEADLINE_S)
        with self._changed:
            wanted = self.connected and not self._stopping and self._count + len(events) <= WAITING_EVENTS
            if wanted:
                self._waiting.append(waiting)
                self._count += len(events)
                self._in_time(waiting)
                # Not for each: the publisher would wake up only to see that it is not time yet.
                if len(self._waiting) == 1 or self._is_full():
                    self._changed.notify()
        if not wanted:
            self._store(waiting)
        return waiting.safe

    def _store(self, waiting: _Waiting) -> None:
        """To the outbox, once, which has a deadline of its own."""
        with self._changed:
            if waiting.storing:
                return
            waiting.storing = True
        # The message may still arrive, and then these events arrive twice: harmless, their ids are unique.
        stored = self._outbox.put(waiting.events)
        self._storing.append((self._clock() + OUTBOX_DEADLINE_S, waiting, stored))

        def told(done: Future[None]) -> None:
            if not done.cancelled():
                waiting.end(done.exception())

        stored.add_done_callback(told)

    # -- deadlines --------------------------------------------------------------------------------------

    def _in_time(self, waiting: _Waiting) -> None:
        """See to its deadline. With `_changed` held."""
        while self._sending and self._sending[0].safe.done():
            self._sending.popleft()
        self._sending.append(waiting)

    def _keep_time(self) -> None:
        """The timekeeper. All wait equally long, so the first is due first; and what comes while this sleeps is due
        after it wakes: nobody has to wake it.
        """
        while self._sending or self._storing or not self._stopping:
            sleep(self._look_at_deadlines())

    def _look_at_deadlines(self) -> float:
        """Do what is due, and say in how many seconds to look again."""
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
                stored.cancel()  # a disk that hangs must not keep them all in memory
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
            except Exception:  # whatever it is: without this thread nothing would leave this process any more
                log.exception("the publisher failed, and goes on")
                self._link.discard()
                self._drain_at = self._clock() + RETRY_S
        self._link.discard()

    def _turn(self) -> bool:
        """Send the next message, and one from the outbox. False: it is time to end."""
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
        # After every message of fresh events one of old ones: neither starves the other.
        self._outbox.look_after_files()
        self._drain()
        return True

    def _take(self) -> list[_Waiting] | None:
        """The next batch, at most BATCH_EVENTS or one request; [] when nothing came; None when it is time to end."""
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
                # Past its deadline it has gone to the outbox already.
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
            self._look_after_link()

    def _can_drain(self) -> bool:
        return self._link.connected and self._outbox.events > 0 and self._clock() >= self._drain_at

    def _drain(self) -> None:
        """Send the oldest events of the outbox, one message."""
        if not self._link.connected or self._clock() < self._drain_at:
            return
        try:
            parcel = self._outbox.take(BATCH_EVENTS)
        except sqlite3.Error as error:
            log.warning("the outbox cannot be read", reason=str(error))
            self._drain_at = self._clock() + IDLE_S
            return
        if parcel is None:
            self._drain_at = self._clock() + IDLE_S
            self._close_breaker()  # nothing to try the broker with: the next request does
        elif self._confirmed(parcel.events, lambda: self._outbox.done(parcel), from_outbox=True):
            self._drain_at = self._clock() + RETRY_S
            self._look_after_link()

    def _confirmed(
        self, events: Sequence[ViewEvent], safe: Callable[[], None], *, from_outbox: bool = False
    ) -> InDoubt | None:
        """Send one message, and say `safe` as soon as it is confirmed. Else the doubt: then the connection is gone."""
        started = self._clock()
        try:
            task_id = self._link.send(events)
        except InDoubt as doubt:
            metrics.streaming().messages.labels("returned" if isinstance(doubt, Returned) else "in_doubt").inc()
            self._break(str(doubt))
            self._store_waiting()
            return doubt
        ms = round((self._clock() - started) * 1000, 1)
        safe()  # first: requests wait for it, and nobody for what follows
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
        """Let nobody wait for a connection that is gone: to the outbox, all of them."""
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

    def _look_after_link(self) -> None:
        """Notice a broker that went, and find one that came back. One log line a change."""
        was = self._link.connected
        try:
            if was:
                self._link.check()
            else:
                self._link.connect()
                log.info("broker reached")
        except InDoubt as doubt:
            log.warning("broker lost", reason=str(doubt))
            self._store_waiting()
            self._look_after_link()
        except BrokerAway as away:
            log.debug("broker away", reason=str(away))
        metrics.streaming().broker_up.set(self.connected)
