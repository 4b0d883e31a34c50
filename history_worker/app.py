"""The Celery app of the history worker: `celery -A history_worker.app worker`."""

from __future__ import annotations

import logging
import sys
import warnings
from functools import cache
from typing import Any

from celery import Celery
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import celeryd_after_setup, celeryd_init, setup_logging
from sqlalchemy import Engine

from history_worker.settings import WorkerSettings
from safe_consumer import dead_letter_reasons, options, pgmq_polling, undecodable_properties
from safe_consumer.pgmq_reads import remember_reads
from safe_consumer.retry import is_overdue
from service import database, garbage_collection, logs
from service.settings import SettingsError, read
from view_events import topology

#: Seconds that the worker waits for an answer of the broker. Less than a heartbeat: while it waits, it sends none.
ANSWER_S = 8
#: The prefix of our tasks' names.
OWN_TASKS = "history."
#: The task that writes several messages in one transaction (history_worker/tasks.py).
GROUP_TASK = "history.record_messages"

undecodable_properties.tolerate()
try:
    settings = read(WorkerSettings)
    app = Celery("history_worker", include=["history_worker.tasks"])
    app.config_from_object("celeryconfig", force=True)
except SettingsError as error:
    sys.exit(f"history worker: {error}")


@cache
def engine() -> Engine:
    """Return this process's connection to PostgreSQL. It is opened after the fork.

    It is a single one, because a process runs one task at a time.
    """
    return database.connect(settings.database_url, pool_size=1, give_up=is_overdue)


options.use(
    app,
    options.Options(
        queue=topology.HISTORY,
        second_try_queue=topology.ALONE,
        group_task=GROUP_TASK,
        group_bytes=settings.together_bytes,
        hold_s=settings.hold_s,
        engine=engine,
    ),
)


@setup_logging.connect  # type: ignore[untyped-decorator]
def _logs(**_: Any) -> None:
    logs.configure(settings)
    # Celery logs two lines for each task. They say less than our one.
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Celery warns at each lost connection that a default will change. celeryconfig.py sets that value itself.
    warnings.filterwarnings(
        "ignore", category=CPendingDeprecationWarning, module=r"(celery\.worker|safe_consumer)\.consumer"
    )


@celeryd_init.connect  # type: ignore[untyped-decorator]
def _own_tasks_only(**_: Any) -> None:
    """Remove the tasks that come with Celery: some publish what their arguments say, with the worker's rights."""
    app.finalize()
    for name in list(app.tasks):
        if not name.startswith(OWN_TASKS):
            app.tasks.unregister(name)


@celeryd_init.connect  # type: ignore[untyped-decorator]
def _nothing_compressed(**_: Any) -> None:
    dead_letter_reasons.decompress_nothing()


@celeryd_init.connect  # type: ignore[untyped-decorator]
def _learner_mode(**_: Any) -> None:
    """Install the pgmq transport before the worker asks what its broker can do."""
    if not topology.is_amqp(app.conf.broker_url):
        pgmq_polling.use()


@celeryd_init.connect  # type: ignore[untyped-decorator]
def _monitoring(**_: Any) -> None:
    """Start the metrics server, before the worker counts, forks or connects. Not in `celery inspect` or Flower."""
    if settings.metrics_port is None:
        return
    from safe_consumer import monitoring

    if not topology.is_amqp(app.conf.broker_url):
        remember_reads()
    try:
        monitoring.start(settings.metrics_host, settings.metrics_port)
    except monitoring.CannotListen as error:
        sys.exit(f"history worker: {error}")


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def _cycles(**_: Any) -> None:
    """Tune the garbage collector before the pool forks: its processes then share the frozen objects."""
    garbage_collection.collect_rarely()


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def _connections(sender: str, conf: Any, **_: Any) -> None:
    if topology.is_amqp(conf.broker_url):
        conf.broker_transport_options = {
            **conf.broker_transport_options,
            # Without these, the worker would wait for ever for a broker that stops in the middle of an answer.
            "read_timeout": ANSWER_S,
            "write_timeout": ANSWER_S,
            # RabbitMQ then lists a worker's connections under the worker's name.
            "client_properties": {"connection_name": sender},
        }
