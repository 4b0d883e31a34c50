"""Gathers the messages that wait for a process of the pool, so that one transaction writes all of them: group commit.

If a process is free, a message goes to it at once. While every process is busy, messages gather here, and the first
free process gets all of them. A message by itself costs a transaction; under load thirty share one.

Each message keeps its own acknowledgement: the worker acknowledges or requeues it by itself. If anything is wrong with
one of them (an event that cannot be stored, an unknown version), nothing is written. Then each is tried by itself, as
the task that it names, and that finds out which one it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import ref

from billiard.exceptions import Terminated
from celery.app.trace import fast_trace_task
from celery.exceptions import Reject, WorkerLostError
from celery.worker import state

from safe_consumer.dead_letter_reasons import Malformed, check_whole
from safe_consumer.options import Options
from safe_consumer.request import error_of
from view_events.event import TASK


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message in the form in which a process of the pool gets it."""

    task_id: str
    redelivered: bool
    body: bytes | str


class MessageGroup:
    """Messages for one transaction. Celery sees one request that waits for a free process."""

    def __init__(self, try_by_itself: Callable[[Any], None], options: Options) -> None:
        self._try_by_itself = try_by_itself
        self._task = options.group_task
        self._max_bytes = options.group_bytes
        self._requests: list[Any] = []
        self._bytes = 0
        self._begun = False

    def add(self, request: Any) -> bool:
        """Add a request. Returns False if there is no room, or if a process has them already."""
        size = len(request.message.body)
        if self._begun or (self._requests and self._bytes + size > self._max_bytes):
            return False
        self._requests.append(request)
        self._bytes += size
        return True

    def execute_using_pool(self, pool: Any) -> None:
        """Give the messages to a process. Celery calls this when one is free."""
        self._begun = True
        first = self._requests[0]
        deliveries = [
            Delivery(request.id, bool(request.delivery_info.get("redelivered")), request.message.body)
            for request in self._requests
        ]
        pool.apply_async(
            fast_trace_task,
            # Without a content type, Celery does not decode the body.
            args=(self._task, first.id, first.request_dict, ((deliveries,), {}, None), None, None),
            accept_callback=self._accepted,
            callback=self._ended,
            error_callback=self._failed,
            correlation_id=first.id,
        )

    def _accepted(self, pid: int, at: float) -> None:
        for request in self._requests:
            request.on_accepted(pid, at)

    def _ended(self, result: tuple[bool, Any, float]) -> None:
        """Finish each message: acknowledge it after a commit, or requeue it if the worker stops.

        Otherwise try each by itself.
        """
        failed, value, _ = result
        if failed and not isinstance(error_of(value), Reject):
            self._try_each()
            return
        for request in self._requests:
            request.on_success(result)

    def _failed(self, info: Any) -> None:
        """Requeue each message if the process died; the broker counts that.

        After any other error, try each by itself.
        """
        if not isinstance(error_of(info), WorkerLostError | Terminated | SystemExit | KeyboardInterrupt):
            self._try_each()
            return
        for request in self._requests:
            request.on_failure(info)

    def _try_each(self) -> None:
        for request in self._requests:
            # The request waits again. Celery believes that a process works on every active request.
            state.active_requests.discard(request)
            self._try_by_itself(request)


class GroupCommit:
    """Gives the requests of messages to the pool: one by itself if a process is free, otherwise several together.

    It stands between Celery's strategy, which makes a request of each message, and the pool.
    """

    def __init__(
        self, hand_on: Callable[[Any], None], options: Options, log_malformed: Callable[[Any, Malformed], None]
    ) -> None:
        self._hand_on = hand_on
        self._options = options
        self._log_malformed = log_malformed
        #: The group that still accepts requests. It is a weak reference: only the pool's semaphore keeps what waits. If
        #: the semaphore is cleared (a lost connection, consumer_timeout.py), the gathered requests are gone, too.
        self._open: Callable[[], MessageGroup | None] = lambda: None

    def __call__(self, request: Any) -> None:
        """Take the request of a message. If a process is free, that process gets it at once."""
        if request.name != TASK:
            self._hand_on(request)
            return
        if request.delivery_info.get("redelivered"):
            # Its worker died, perhaps because of this message. Other messages in the same transaction would be requeued
            # with it, and their delivery count would go up, too.
            self._begin_with(request)
            return
        group = self._open()
        if group is None or not group.add(request):
            self._open = self._begin_with(request)

    def _begin_with(self, request: Any) -> ref[MessageGroup]:
        group = MessageGroup(self._try_by_itself, self._options)
        group.add(request)
        self._hand_on(group)
        return ref(group)

    def _try_by_itself(self, request: Any) -> None:
        # safe_consumer/consumer.py has checked the message's shape, but has not decoded all of it.
        try:
            check_whole(request.message)
        except Malformed as malformed:
            self._log_malformed(request.message, malformed)
            request.reject(requeue=False)
            state.task_ready(request)
        else:
            self._hand_on(request)
