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
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
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
BATCH_EVENTS = 500
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


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The events of one request, on their way."""

    events: Sequence[ViewEvent]
    deadline: float
    sent: Future[None] = field(default_factory=Future)


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
        self._begun = False
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

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
        """Return once these events are safe: confirmed by the broker, or committed to the outbox.

        Raises NotAccepted within DEADLINE_S + OUTBOX_DEADLINE_S otherwise.
        """
        if waiting := self._enqueue(events):
            try:
                return waiting.sent.result(timeout=DEADLINE_S)
            except TimeoutError:
                self._break("no confirm in time")
            except (InDoubt, BrokerAway):
                pass
        # The message may still arrive, and then these events arrive twice: harmless, their ids are unique.
        stored = self._outbox.put(events)
        try:
            return stored.result(timeout=OUTBOX_DEADLINE_S)
        except TimeoutError:
            stored.cancel()  # a disk that hangs must not keep them all in memory
            self._outbox.usable = False
            raise NotAccepted("the outbox did not commit it in time") from None

    def submit(self, events: Sequence[ViewEvent]) -> Future[None]:
        """Put events on their way without waiting. The future ends with None once safe, or with NotAccepted."""
        waiting = self._enqueue(events)
        if waiting is None:
            return self._outbox.put(events)
        safe: Future[None] = Future()

        def sent(done: Future[None]) -> None:
            if done.exception() is None:
                safe.set_result(None)
            else:
                self._outbox.put(events).add_done_callback(stored)

        def stored(done: Future[None]) -> None:
            safe.set_exception(error) if (error := done.exception()) else safe.set_result(None)

        waiting.sent.add_done_callback(sent)
        return safe

    def _enqueue(self, events: Sequence[ViewEvent]) -> _Waiting | None:
        """Queue events for the next message; None where that is of no use now."""
        waiting = _Waiting(events, deadline=self._clock() + DEADLINE_S)
        with self._changed:
            if not self.connected or self._stopping or self._count + len(events) > WAITING_EVENTS:
                return None
            self._waiting.append(waiting)
            self._count += len(events)
            self._changed.notify()
        return waiting

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
            batch: list[_Waiting] = []
            size = 0
            while self._waiting and (not batch or size + len(self._waiting[0].events) <= BATCH_EVENTS):
                waiting = self._waiting.popleft()
                self._count -= len(waiting.events)
                # Past its deadline it has gone to the outbox already.
                if waiting.deadline > self._clock():
                    batch.append(waiting)
                    size += len(waiting.events)
                else:
                    waiting.sent.set_exception(InDoubt("not sent in time"))
            return batch

    def _send(self, batch: list[_Waiting]) -> None:
        def safe() -> None:
            for waiting in batch:
                waiting.sent.set_result(None)

        doubt = self._confirmed([event for waiting in batch for event in waiting.events], safe)
        if doubt is not None:
            for waiting in batch:
                waiting.sent.set_exception(doubt)
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
            self._fail_waiting(doubt)
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

    def _fail_waiting(self, doubt: InDoubt) -> None:
        """Let nobody wait for a connection that is gone: to the outbox, all of them."""
        with self._changed:
            waiting, self._waiting, self._count = self._waiting, deque(), 0
        for one in waiting:
            one.sent.set_exception(doubt)

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
            self._fail_waiting(doubt)
            self._look_after_link()
        except BrokerAway as away:
            log.debug("broker away", reason=str(away))
        metrics.streaming().broker_up.set(self.connected)
