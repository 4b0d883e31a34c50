"""The publisher: one thread a process that carries view events to the broker, many requests in one message.

Group commit: what arrives while one message is in flight travels together in the next. A quiet service sends one event
a task, a busy one hundreds, and nobody waits for a timer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

import structlog

from streaming_app import metrics
from streaming_app.errors import BrokerAway, InDoubt, NotAccepted
from view_events.event import ViewEvent

log = structlog.get_logger(__name__)

#: How long a request waits for its confirm, from its arrival. A page that reports a view should never feel it.
DEADLINE_S = 0.25
#: Events in one message at the most. Past this a bigger batch gains little, and a redelivery repeats more. One request
#: (up to 1,000 events) is never split.
BATCH_EVENTS = 500
#: Events that may wait. At 250 ms a request, more than this cannot be sent in time anyway.
WAITING_EVENTS = 50_000
#: How often the idle thread looks whether the broker has gone.
IDLE_S = 0.5
#: Pause between attempts to reach a broker that is away.
RETRY_S = 0.5


class Link(Protocol):
    """What the publisher needs of the broker; `broker.BrokerLink` is the real one."""

    @property
    def connected(self) -> bool: ...
    def connect(self) -> None: ...
    def send(self, events: Sequence[ViewEvent]) -> None: ...
    def check(self) -> None: ...
    def discard(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The events of one request, on their way."""

    events: Sequence[ViewEvent]
    deadline: float
    sent: Future[None] = field(default_factory=Future)


class Publisher:
    """Hands events to the broker and says when they are safe there.

    `start` it after the process has forked: connections and threads do not survive a fork.
    """

    def __init__(self, link: Link, *, clock: Callable[[], float] = monotonic) -> None:
        self._link = link
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._count = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    @property
    def ready(self) -> bool:
        """Whether the broker can be reached, as far as is known."""
        return self._link.connected

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 5) -> None:
        """Send what waits, then close the connection."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def publish(self, events: Sequence[ViewEvent]) -> None:
        """Return once the broker has confirmed these events. Raises NotAccepted within DEADLINE_S otherwise."""
        waiting = self.submit(events)
        try:
            waiting.result(timeout=DEADLINE_S)
        except TimeoutError:
            raise NotAccepted("the broker did not confirm in time") from None

    def submit(self, events: Sequence[ViewEvent]) -> Future[None]:
        """Put events on their way without waiting. Raises NotAccepted when the broker is known to be away.

        The future ends with None once they are confirmed, or with NotAccepted.
        """
        waiting = _Waiting(events, deadline=self._clock() + DEADLINE_S)
        with self._changed:
            if not self.ready:
                raise NotAccepted("the broker is away")
            if self._count + len(events) > WAITING_EVENTS:
                raise NotAccepted("too many views are waiting")
            self._waiting.append(waiting)
            self._count += len(events)
            self._changed.notify()
        return waiting.sent

    def _run(self) -> None:
        self._look_after_link()
        while True:
            batch = self._take()
            if batch is None:
                break
            if batch:
                self._send(batch)
            else:
                self._look_after_link()
        self._link.discard()

    def _take(self) -> list[_Waiting] | None:
        """The next batch, at most BATCH_EVENTS or one request; [] when nothing came; None when it is time to end."""
        with self._changed:
            if not self._waiting and not self._stopping:
                self._changed.wait(IDLE_S if self._link.connected else RETRY_S)
            if not self._waiting:
                return None if self._stopping else []
            batch: list[_Waiting] = []
            size = 0
            while self._waiting and (not batch or size + len(self._waiting[0].events) <= BATCH_EVENTS):
                waiting = self._waiting.popleft()
                self._count -= len(waiting.events)
                # Past its deadline its request has been answered 503 already; the client sends it again.
                if waiting.deadline > self._clock():
                    batch.append(waiting)
                    size += len(waiting.events)
                else:
                    waiting.sent.set_exception(NotAccepted("the broker did not confirm in time"))
            return batch

    def _send(self, batch: list[_Waiting]) -> None:
        events = [event for waiting in batch for event in waiting.events]
        started = self._clock()
        try:
            self._link.send(events)
        except InDoubt as doubt:
            log.warning("publish in doubt", events=len(events), reason=str(doubt))
            metrics.PUBLISHED.labels("in_doubt").inc()
            self._look_after_link()
            self._again(batch)
        else:
            metrics.PUBLISHED.labels("confirmed").inc()
            metrics.BATCH_EVENTS.observe(len(events))
            log.debug("published", events=len(events), ms=round((self._clock() - started) * 1000, 1))
            for waiting in batch:
                waiting.sent.set_result(None)

    def _again(self, batch: list[_Waiting]) -> None:
        """Back to the front, if there is a link again; those too late are dropped by `_take`.

        A batch in doubt may have arrived, and now arrives twice: harmless, its ids are unique.
        """
        with self._changed:
            if not self._link.connected:
                self._fail(batch)
                self._fail(self._waiting)
                self._waiting.clear()
                self._count = 0
                return
            self._waiting.extendleft(reversed(batch))
            self._count += sum(len(waiting.events) for waiting in batch)

    @staticmethod
    def _fail(batch: Sequence[_Waiting] | deque[_Waiting]) -> None:
        for waiting in batch:
            waiting.sent.set_exception(NotAccepted("the broker is away"))

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
            self._look_after_link()
        except BrokerAway as away:
            log.debug("broker away", reason=str(away))
        metrics.BROKER_UP.set(self._link.connected)
