"""The worker's consumer: Celery's, which keeps the topology in being and is quick to find a broker that comes back."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

import structlog
from amqp.exceptions import PreconditionFailed
from celery import bootsteps
from celery.worker import consumer
from celery.worker.consumer.connection import Connection
from celery.worker.consumer.tasks import Tasks
from celery.worker.state import maybe_shutdown

from history_worker.alone import Alone
from history_worker.app import settings
from history_worker.gathering import Gathering
from history_worker.patience import Patience
from history_worker.pulse import PULSE, Heart
from history_worker.reasons import Malformed, how_many, look
from view_events import metrics, topology

log = structlog.get_logger(__name__)

#: How often what the broker has is compared with what it should have: well below the 10 s within which it is back.
DECLARE_EVERY_S = 5
#: Pauses between attempts to reach the broker: the first, and the longest. A worker that looks once a second for a
#: broker that is away costs nothing; Celery's own pauses grow to half a minute.
PAUSE_S = {"interval_start": 0.2, "interval_step": 0.2, "interval_max": 1.0}
#: Connections are made no faster than this, also if each ends at once.
CONNECT_EVERY_S = 1


class Topology(bootsteps.StartStopStep):  # type: ignore[misc]
    """Declares exchanges, queues and bindings on every connect and every few seconds.

    What somebody deleted comes back by itself. (When the queue itself is deleted, the broker says so, and the worker
    connects anew.)
    """

    requires = (Connection,)

    def __init__(self, _consumer: Any, **_: Any) -> None:
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        try:
            topology.declare(consumer.connection)
        except PreconditionFailed as error:
            # Celery connects again and again, for somebody has to change the broker first: CHANGELOG.md says how.
            log.error("the broker has a queue or exchange of that name and another shape", reason=str(error))  # noqa: TRY400
            raise
        if topology.is_amqp(consumer.app.conf.broker_url) and consumer.hub:
            # Nobody waits for the answers: a broker that is frozen must not stop the worker's heartbeats. What is
            # refused closes this channel, and Celery connects anew.
            channel = consumer.connection.channel()
            self._timer = consumer.timer.call_repeatedly(
                DECLARE_EVERY_S, topology.declare_on, (channel,), {"nowait": True}
            )

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            consumer.timer.cancel(self._timer)
            self._timer = None


# Celery would declare the queues by itself, and `history` before the exchange that it dead-letters to.
Tasks.requires = (*Tasks.requires, Topology)


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Named in `celeryconfig.worker_consumer`."""

    class Blueprint(consumer.Consumer.Blueprint):  # type: ignore[misc]
        # Tasks with a countdown would go through 28 `celery_delayed_*` queues. Views have none.
        default_steps = (
            *(step for step in consumer.Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")),
            Topology,
            Patience,
            Alone,
            Heart,
        )

    _connected_at = float("-inf")

    def __init__(self, on_task_request: Callable[[Any], None], *args: Any, **options: Any) -> None:
        super().__init__(Gathering(on_task_request, settings.together_bytes, tell_malformed), *args, **options)

    def connect(self) -> Any:
        """Open the connection that tasks come over; wait for a broker that is away."""
        while self._connected_at + CONNECT_EVERY_S > monotonic():
            maybe_shutdown()
            sleep(0.1)
        connection = super().connect()
        self._connected_at = monotonic()
        return connection

    def ensure_connected(self, conn: Any) -> Any:
        """The connection, once the broker takes it. Raises WorkerShutdown when the worker is asked to stop."""
        away_since: float | None = None

        def say_away(error: BaseException, _pause_s: float) -> None:
            nonlocal away_since
            if away_since is None:
                away_since = monotonic()
                log.warning("RabbitMQ is away", reason=str(error), broker=conn.as_uri())

        conn = conn.ensure_connection(say_away, callback=maybe_shutdown, **PAUSE_S)
        if away_since is not None:
            log.info("RabbitMQ is back", away_s=round(monotonic() - away_since, 1))
        self.first_connection_attempt = False
        return conn

    def perform_pending_operations(self) -> None:
        """Called at each turn where there is no event loop."""
        PULSE.beat()
        super().perform_pending_operations()

    def create_task_handler(self, **options: Any) -> Callable[[Any], None]:
        """Celery's, for messages of the right shape only: some others would end the whole worker."""
        handle = super().create_task_handler(**options)

        def handle_or_reject(message: Any) -> None:
            try:
                look(message)
            except Malformed as malformed:
                self.on_decode_error(message, malformed)
            else:
                handle(message)

        return handle_or_reject

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Reject what cannot be decoded, so that it is dead-lettered. Celery would acknowledge it, and it were gone."""
        tell_malformed(message, exc)
        message.reject_log_error(log, self.connection_errors)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Celery's, which rejects it."""
        super().on_unknown_task(body, message, exc)
        _count_refused("unknown-task", message)


def tell_malformed(message: Any, error: Exception) -> None:
    """Say, and count, that a message is rejected because it cannot be decoded."""
    log.error(
        "message cannot be decoded, dead-lettered",
        reason=str(error),
        content_type=message.content_type,
        task_id=message.headers.get("id"),
    )
    _count_refused(error.reason.kind if isinstance(error, Malformed) else "undecodable", message)


def _count_refused(kind: str, message: Any) -> None:
    with metrics.NO_FORK:
        metrics.worker().refused.labels(kind).inc(how_many(message.body))
