"""Limits how long a worker keeps messages while PostgreSQL is away: after HOLD_S it requeues them and pauses.

RabbitMQ does not let a worker keep a message for longer than its `consumer_timeout`. Up to 4.2 it closes the worker's
channel. Since 4.3 it requeues the message and cancels the consumer, and the channel stays open. Long before that, this
step requeues all messages and stops consuming. If RabbitMQ cancels the consumer first, it does the same.

The pool's processes go on trying to write what they have. As soon as one succeeds, or ends with an error, the worker
consumes again. (What it wrote is delivered once more, and changes nothing.)
"""

from __future__ import annotations

from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

import structlog
from celery import bootsteps
from celery.worker import state
from celery.worker.consumer.tasks import Tasks

from safe_consumer import options
from safe_consumer.health import HEALTH
from view_events import topology

log = structlog.get_logger(__name__)

#: Seconds between two checks. Together with BACKOFF_S (safe_consumer/retry.py) less than 5 s, so that the worker
#: soon notices that PostgreSQL is back.
CHECK_EVERY_S = 1


class ConsumerTimeout(bootsteps.StartStopStep):  # type: ignore[misc]
    """Celery's step that requeues all messages and pauses the worker if one was unacknowledged for HOLD_S.

    The object stays the same across reconnects.
    """

    requires = (Tasks,)

    def __init__(self, consumer: Any, **_: Any) -> None:
        self._timer: Any = None
        #: When each request was delivered over the current connection.
        self._delivered: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        #: Set while paused: the queues to consume again, and the requests that the pool's processes work on.
        self._queues: list[str] = []
        self._under_way: set[Any] = set()
        self._paused_at = 0.0
        self._consumer = consumer
        consumer.on_task_message.add(self._remember)
        consumer.consumer_timeout = self

    def start(self, consumer: Any) -> None:
        self._delivered.clear()  # RabbitMQ has requeued what came over an earlier connection
        if topology.is_amqp(consumer.app.conf.broker_url) and consumer.hub:
            self._timer = consumer.timer.call_repeatedly(CHECK_EVERY_S, self.check, (consumer,))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            consumer.timer.cancel(self._timer)
            self._timer = None

    def notice_cancels_on(self, channel: Any) -> None:
        """Make this channel's consumers report when RabbitMQ cancels them. Otherwise py-amqp ends the connection."""
        consume = channel.basic_consume

        def consume_and_notice(*args: Any, **amqps: Any) -> Any:
            return consume(*args, **amqps | {"on_cancel": self.cancelled})

        channel.basic_consume = consume_and_notice

    def check(self, consumer: Any) -> None:
        """Pause if a message has been unacknowledged for too long. Resume when a process has finished one."""
        if self._queues:
            if not self._under_way or not self._under_way.issubset(state.active_requests):
                self._resume(consumer)
        elif self._oldest_s() > options.of(consumer.app).hold_s:
            self._pause(consumer, "could not write for too long: requeued all messages, and stopped consuming")

    def cancelled(self, _tag: str) -> None:
        """React to RabbitMQ cancelling the consumer. Raises a channel error if the reason is that the queue is gone."""
        log.warning("RabbitMQ cancelled the consumer")
        options.of(self._consumer.app).queue(self._consumer.connection.default_channel).queue_declare(passive=True)
        if not self._queues:
            self._pause(self._consumer, "RabbitMQ waited for too long: requeued all messages, and stopped consuming")

    def _remember(self, request: Any) -> None:
        self._delivered[request] = monotonic()

    def _unacknowledged(self) -> list[Any]:
        return [request for request in list(self._delivered) if not request.acknowledged]

    def _oldest_s(self) -> float:
        now = monotonic()
        return max((now - self._delivered[request] for request in self._unacknowledged()), default=0.0)

    def _pause(self, consumer: Any, why: str) -> None:
        oldest_s = self._oldest_s()
        HEALTH.paused(paused=True)
        self._queues = [queue.name for queue in consumer.task_consumer.queues]
        self._under_way = set(state.active_requests)
        self._paused_at = monotonic()
        for name in self._queues:
            consumer.app.amqp.queues.deselect(name)  # for later connections
        for name in self._queues:
            consumer.task_consumer.cancel_by_queue(name)
        # After the cancel, so that these include what arrived meanwhile.
        requeued = self._unacknowledged()
        for request in requeued:
            request.requeue()
            if request not in self._under_way:
                state.task_ready(request)
        # No process of the pool may begin with a requeued message.
        if consumer.controller.semaphore:
            consumer.controller.semaphore.clear()
        log.warning(
            why,
            messages=len(requeued),
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
        HEALTH.paused(paused=False)
        log.info("consuming again", paused_s=round(monotonic() - self._paused_at, 1))
