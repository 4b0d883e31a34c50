"""How long a worker holds messages: when PostgreSQL is away for longer, it gives them back and waits with empty hands.

A broker closes the channel of a worker that holds a message for longer than its `consumer_timeout`. Long before that,
this gives back everything and stops consuming. The pool's processes go on trying to write what they have: the first
that succeeds, or ends otherwise, shows that it is worth while to consume again. (What it wrote is delivered once more,
and changes nothing.)
"""

from __future__ import annotations

from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

import structlog
from celery import bootsteps
from celery.worker import state
from celery.worker.consumer.tasks import Tasks

from history_worker.app import settings
from history_worker.pulse import PULSE
from view_events import topology

log = structlog.get_logger(__name__)

#: How often the worker looks: with BACKOFF_S (history_worker/holding.py) less than the 5 s for PostgreSQL's return.
LOOK_EVERY_S = 1


class Patience(bootsteps.StartStopStep):  # type: ignore[misc]
    """Watches the age of what is held; lives through reconnects."""

    requires = (Tasks,)

    def __init__(self, consumer: Any, **_: Any) -> None:
        self._timer: Any = None
        #: When each request was delivered over the present connection.
        self._delivered: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        #: While paused: the queues to come back to, and what the pool's processes were at work on.
        self._queues: list[str] = []
        self._under_way: set[Any] = set()
        self._paused_at = 0.0
        consumer.on_task_message.add(self._note)

    def start(self, consumer: Any) -> None:
        self._delivered.clear()  # what came over an earlier connection is the broker's again
        if topology.is_amqp(consumer.app.conf.broker_url) and consumer.hub:
            self._timer = consumer.timer.call_repeatedly(LOOK_EVERY_S, self.look, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            consumer.timer.cancel(self._timer)
            self._timer = None

    def look(self, consumer: Any) -> None:
        """Pause when something has been held for too long; resume when something came to its end."""
        if self._queues:
            if not self._under_way or not self._under_way.issubset(state.active_requests):
                self._resume(consumer)
        elif self._oldest_s() > settings.hold_s:
            self._pause(consumer)

    def _note(self, request: Any) -> None:
        self._delivered[request] = monotonic()

    def _held(self) -> list[Any]:
        return [request for request in list(self._delivered) if not request.acknowledged]

    def _oldest_s(self) -> float:
        now = monotonic()
        return max((now - self._delivered[request] for request in self._held()), default=0.0)

    def _pause(self, consumer: Any) -> None:
        oldest_s = self._oldest_s()
        PULSE.paused(paused=True)
        self._queues = [queue.name for queue in consumer.task_consumer.queues]
        self._under_way = set(state.active_requests)
        self._paused_at = monotonic()
        for name in self._queues:
            consumer.app.amqp.queues.deselect(name)  # for the connections to come
        for name in self._queues:
            consumer.task_consumer.cancel_by_queue(name)
        # After the broker has stopped delivering: what arrived meanwhile is among them.
        held = self._held()
        for request in held:
            request.reject(requeue=True)
            if request not in self._under_way:
                state.task_ready(request)
        # No process of the pool is to begin with what was given back.
        if consumer.controller.semaphore:
            consumer.controller.semaphore.clear()
        log.warning(
            "could not write for too long: gave back what was held, and stopped consuming",
            messages=len(held),
            oldest_s=round(oldest_s, 1),
        )

    def _resume(self, consumer: Any) -> None:
        names, self._queues = self._queues, []
        self._under_way = set()
        queues = consumer.app.amqp.queues
        for name in names:
            queues.select_add(queues[name])
        for name in names:
            consumer.add_task_queue(name)
        PULSE.paused(paused=False)
        log.info("consuming again", paused_s=round(monotonic() - self._paused_at, 1))
