"""Gathers messages that wait for a process of the pool, so that one transaction writes all of them: group commit.

A quiet worker hands on each message as it comes. What arrives while every process is busy waits here, together, for the
first that is free. A message by itself costs a transaction; under load thirty share one.

They stay separate for the broker: each is acknowledged, or given back, by itself. Whatever is wrong with one of them
(an event that nobody can store, another version) ends the attempt before anything is written, and each is then tried
alone, in the way of `tasks.record_views`, which finds out which one it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import ref

from billiard.einfo import ExceptionWithTraceback
from celery.app.trace import fast_trace_task
from celery.exceptions import Reject, WorkerLostError
from celery.worker import state

from history_worker.reasons import Malformed, look_closely
from view_events.event import TASK

#: The task that writes what was gathered; no message names it.
TOGETHER = "history.record_together"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as a process of the pool gets it."""

    task_id: str
    redelivered: bool
    body: bytes | str


class Together:
    """Messages for one transaction. To Celery it looks like one request that waits for a free process."""

    def __init__(self, apart: Callable[[Any], None], max_bytes: int) -> None:
        self._apart = apart
        self._max_bytes = max_bytes
        self._requests: list[Any] = []
        self._bytes = 0
        self._begun = False

    def add(self, request: Any) -> bool:
        """Whether this still takes it."""
        size = len(request.message.body)
        if self._begun or (self._requests and self._bytes + size > self._max_bytes):
            return False
        self._requests.append(request)
        self._bytes += size
        return True

    def execute_using_pool(self, pool: Any) -> None:
        """Called by Celery when a process is free."""
        self._begun = True
        first = self._requests[0]
        deliveries = [
            Delivery(request.id, bool(request.delivery_info.get("redelivered")), request.message.body)
            for request in self._requests
        ]
        pool.apply_async(
            fast_trace_task,
            # Without a content type the body is taken as it is.
            args=(TOGETHER, first.id, first.request_dict, ((deliveries,), {}, None), None, None),
            accept_callback=self._accepted,
            callback=self._ended,
            error_callback=self._failed,
            correlation_id=first.id,
        )

    def _accepted(self, pid: int, at: float) -> None:
        for request in self._requests:
            request.on_accepted(pid, at)

    def _ended(self, result: tuple[bool, Any, float]) -> None:
        """Committed: each is acknowledged. Or the worker stops meanwhile: each goes back. Else each is tried alone."""
        failed, value, _ = result
        if failed and not isinstance(error_of(value), Reject):
            self._each_alone()
            return
        for request in self._requests:
            request.on_success(result)

    def _failed(self, info: Any) -> None:
        """The process died: what it held goes back, and the broker counts."""
        if not isinstance(error_of(info), WorkerLostError | SystemExit | KeyboardInterrupt):
            self._each_alone()
            return
        for request in self._requests:
            request.on_failure(info)

    def _each_alone(self) -> None:
        for request in self._requests:
            # It waits again. Celery takes what is active for what a process works on.
            state.active_requests.discard(request)
            self._apart(request)


def error_of(info: Any) -> BaseException:
    """What a process raised, or died of: billiard wraps it to carry its traceback."""
    error: BaseException = info.exception
    return error.exc if isinstance(error, ExceptionWithTraceback) else error


class Gathering:
    """Stands between Celery's strategy, which makes a request of a message, and the pool."""

    def __init__(
        self, hand_on: Callable[[Any], None], max_bytes: int, tell_malformed: Callable[[Any, Malformed], None]
    ) -> None:
        self._hand_on = hand_on
        self._tell_malformed = tell_malformed
        self._max_bytes = max_bytes
        #: Only the pool's semaphore holds what waits: whoever clears that (a lost connection, patience.py) has thrown
        #: away what was gathered, too.
        self._open: Callable[[], Together | None] = lambda: None

    def __call__(self, request: Any) -> None:
        """Take the request of a message; hand it on at once where a process is free."""
        if request.name != TASK:
            self._hand_on(request)
            return
        if request.delivery_info.get("redelivered"):
            # Its worker died, perhaps of it: what would be with it would go back with it, and be counted with it.
            self._begin_with(request)
            return
        together = self._open()
        if together is None or not together.add(request):
            self._open = self._begin_with(request)

    def _begin_with(self, request: Any) -> ref[Together]:
        together = Together(self._hand_on_alone, self._max_bytes)
        together.add(request)
        self._hand_on(together)
        return ref(together)

    def _hand_on_alone(self, request: Any) -> None:
        # Its shape was looked at (history_worker/consumer.py), not every byte of it.
        try:
            look_closely(request.message)
        except Malformed as malformed:
            self._tell_malformed(request.message, malformed)
            request.reject(requeue=False)
            state.task_ready(request)
        else:
            self._hand_on(request)
