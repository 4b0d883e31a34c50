"""The worker's consumer: Celery's, with the topology declared on every connect, and without what views do not need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery import bootsteps
from celery.worker import consumer
from celery.worker.consumer.connection import Connection

from history_worker.alone import Alone
from history_worker.reasons import Malformed, arguments
from view_events import topology

log = structlog.get_logger(__name__)


class Topology(bootsteps.StartStopStep):  # type: ignore[misc]
    """Declares exchanges, queues and bindings on every connect, so that one that somebody deleted comes back."""

    requires = (Connection,)

    def start(self, consumer: Any) -> None:
        topology.declare(consumer.connection)


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Named in `celeryconfig.worker_consumer`."""

    class Blueprint(consumer.Consumer.Blueprint):  # type: ignore[misc]
        # Tasks with a countdown would go through 28 `celery_delayed_*` queues. Views have none.
        default_steps = (
            *(step for step in consumer.Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")),
            Topology,
            Alone,
        )

    def create_task_handler(self, **options: Any) -> Callable[[Any], None]:
        """Celery's, for messages of the right shape only: some others would end the whole worker."""
        handle = super().create_task_handler(**options)

        def handle_or_reject(message: Any) -> None:
            try:
                arguments(message)
            except Malformed as malformed:
                self.on_decode_error(message, malformed)
            else:
                handle(message)

        return handle_or_reject

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Reject what cannot be decoded, so that it is dead-lettered. Celery would acknowledge it, and it were gone."""
        log.error("message cannot be decoded, dead-lettered", reason=str(exc), content_type=message.content_type)
        message.reject_log_error(log, self.connection_errors)
