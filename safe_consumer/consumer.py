"""The worker's consumer: Celery's, plus our topology, quick reconnects and a check of every message."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

import structlog
from celery import bootsteps
from celery.worker import consumer
from celery.worker.consumer.connection import Connection
from celery.worker.consumer.events import Events
from celery.worker.consumer.tasks import Tasks
from celery.worker.state import maybe_shutdown

from safe_consumer import options
from safe_consumer.connection_attempts import ConnectionAttempts, what_to_do
from safe_consumer.consumer_timeout import ConsumerTimeout
from safe_consumer.dead_letter_reasons import Malformed, celery_headers, check_outline, how_many, one_line, reason_of
from safe_consumer.dead_lettering import DeadLettering, dead_letter
from safe_consumer.group_commit import GroupCommit
from safe_consumer.health import HealthCheck
from safe_consumer.remote_control import RemoteControl
from safe_consumer.second_try import SecondTry
from service import connection_advice, metrics
from view_events import topology

log = structlog.get_logger(__name__)
#: Celery logs in several lines what this module logs in one.
CELERYS_LOG = logging.getLogger(consumer.__name__)

#: Seconds between two declarations of the topology. A deleted binding must be back within 10 s.
DECLARE_EVERY_S = 5
#: Seconds between attempts to reach the broker: the first pause, the step, and the longest. One attempt a second costs
#: nothing. Celery's own pauses grow to half a minute.
PAUSE_S = {"interval_start": 0.2, "interval_step": 0.2, "interval_max": 1.0}
#: Celery's steps that a worker leaves out. DelayedDelivery would send tasks with a countdown through 28
#: `celery_delayed_*` queues, and views have no countdown. Mingle and Gossip trust everybody who claims to be a worker:
#: they accept which tasks are revoked and which one to run. Control obeys commands; our remote_control.py only answers
#: questions.
LEFT_OUT = (":DelayedDelivery", ":Mingle", ":Gossip", ":Control")
#: At least so many seconds pass between two connections, also if each ends at once.
CONNECT_EVERY_S = 1


class Topology(bootsteps.StartStopStep):  # type: ignore[misc]
    """Declares exchanges, queues and bindings on every connect and every few seconds.

    So a deleted binding comes back by itself. If the queue itself is deleted, the broker tells the worker, and the
    worker connects again.
    """

    requires = (Connection,)

    def __init__(self, _consumer: Any, **_: Any) -> None:
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        topology.declare(consumer.connection)
        if topology.is_amqp(consumer.app.conf.broker_url) and consumer.hub:
            # The worker does not wait for the answers: a frozen broker must not stop its heartbeats. If the broker
            # refuses a declaration, it closes this channel, and Celery connects again.
            channel = consumer.connection.channel()
            self._timer = consumer.timer.call_repeatedly(
                DECLARE_EVERY_S, topology.declare_on, (channel,), {"nowait": True}
            )

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            consumer.timer.cancel(self._timer)
            self._timer = None


# Without this, Celery would declare the queues itself, and `history` before the exchange that it dead-letters to. Tasks
# also requires Mingle, and Celery starts what a step requires, even if it is not among the default steps. Mingle
# required Events; it has to be named here instead. A task sends no events, and Flower shows none, unless Events starts
# before Tasks.
Tasks.requires = (Events, Topology)


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Celery's consumer with our steps. `celeryconfig.worker_consumer` names it."""

    class Blueprint(consumer.Consumer.Blueprint):  # type: ignore[misc]
        default_steps = (
            *(step for step in consumer.Consumer.Blueprint.default_steps if not step.endswith(LEFT_OUT)),
            RemoteControl,
            Topology,
            DeadLettering,
            ConsumerTimeout,
            SecondTry,
            HealthCheck,
        )

    _connected_at = float("-inf")
    consumer_timeout: ConsumerTimeout  #: set by that step

    def __init__(self, on_task_request: Callable[[Any], None], *args: Any, app: Any, **celerys: Any) -> None:
        gather = GroupCommit(on_task_request, options.of(app), log_malformed)
        super().__init__(gather, *args, app=app, **celerys)
        self.connection_attempts = ConnectionAttempts(
            "RabbitMQ" if topology.is_amqp(self.app.conf.broker_url) else "PostgreSQL"
        )

    def connect(self) -> Any:
        """Open the connection that delivers the messages. Waits while the broker is away."""
        _wait(self._connected_at + CONNECT_EVERY_S - monotonic())
        connection = super().connect()
        self._connected_at = monotonic()
        return connection

    def ensure_connected(self, conn: Any) -> Any:
        """Return the connection once the broker accepts it. Raises WorkerShutdown if the worker is asked to stop."""

        def failed(error: BaseException, _pause_s: float = 0) -> None:
            tls = bool(conn.ssl)
            about_tls = connection_advice.why(error, tls=tls) if connection_advice.advice(error, tls=tls) else None
            self.connection_attempts.failed(error, conn.as_uri(), about_tls)

        while True:
            try:
                conn = conn.ensure_connection(failed, callback=maybe_shutdown, **PAUSE_S)
            except (*conn.connection_errors, *conn.channel_errors) as refusal:
                failed(refusal)
                conn.maybe_switch_next()  # another node of a cluster may accept it
                _wait(self.connection_attempts.next_pause_s())
            else:
                self.first_connection_attempt = False
                return conn

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close the connection as Celery does, but log one line. Pauses if somebody must change the broker first."""
        self.connection_attempts.lost(exc, self.connection.as_uri())
        CELERYS_LOG.setLevel(logging.ERROR)  # until the worker consumes: Celery would log several lines per attempt
        super().on_connection_error_after_connected(exc)
        if what_to_do(exc):
            _wait(self.connection_attempts.next_pause_s())
        else:
            CELERYS_LOG.setLevel(logging.NOTSET)

    def on_ready(self) -> None:
        """Note that the worker consumes now."""
        super().on_ready()
        CELERYS_LOG.setLevel(logging.NOTSET)
        self.connection_attempts.works()

    def create_task_handler(self, **celerys: Any) -> Callable[[Any], None]:
        """Return Celery's handler, for well-formed messages only. Others could end the worker or use its rights."""
        handle = super().create_task_handler(**celerys)
        if topology.is_amqp(self.app.conf.broker_url):
            self.consumer_timeout.notice_cancels_on(self.task_consumer.channel)

        def handle_or_dead_letter(message: Any) -> None:
            try:
                check_outline(message)
            except Malformed as malformed:
                self.on_decode_error(message, malformed)
            else:
                message.headers = celery_headers(message.headers)
                message.properties = {}
                handle(message)

        return handle_or_dead_letter

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Dead-letter a message that cannot be decoded. Celery would acknowledge it, and the message would be lost."""
        log_malformed(message, exc)
        dead_letter(message, reason_of(exc))


def _wait(seconds: float) -> None:
    """Wait. Raises WorkerShutdown if the worker is asked to stop."""
    until = monotonic() + seconds
    while monotonic() < until:
        maybe_shutdown()
        sleep(0.1)


def log_malformed(message: Any, error: Exception) -> None:
    """Log and count a message that is dead-lettered because no worker can run it."""
    task_id = message.headers.get("id")
    log.error(
        "message cannot be decoded, dead-lettered",
        reason=str(error),
        content_type=message.content_type,
        task_id=one_line(task_id) if isinstance(task_id, str) else None,
    )
    with metrics.NO_FORK:
        metrics.worker().refused.labels(reason_of(error).kind).inc(how_many(message.body))
