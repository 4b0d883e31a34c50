"""The Celery app: `celery -A history_worker.app worker`."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

from celery import Celery
from celery.exceptions import CPendingDeprecationWarning
from celery.signals import celeryd_after_setup, celeryd_init, setup_logging
from celery.worker.control import Panel

from history_worker.settings import WorkerSettings
from view_events import cycles, logs, topology
from view_events.settings import SettingsError, read

#: How long the broker may take for an answer that the worker waits for: less than a heartbeat, since none is sent then.
ANSWER_S = 8
#: Remote control commands that a worker obeys besides those that only look: Flower asks for events.
HARMLESS_COMMANDS = frozenset({"enable_events", "disable_events", "heartbeat"})

try:
    settings = read(WorkerSettings)
    app = Celery("history_worker", include=["history_worker.tasks"])
    app.config_from_object("celeryconfig", force=True)
except SettingsError as error:
    sys.exit(f"history worker: {error}")


@setup_logging.connect  # type: ignore[untyped-decorator]
def _logs(**_: Any) -> None:
    logs.configure(settings)
    # Celery's own two lines a task say less than our one.
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Said at each lost connection: a default will change that celeryconfig.py sets.
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning, module="celery.worker.consumer")


@celeryd_init.connect  # type: ignore[untyped-decorator]
def _only_looking(**_: Any) -> None:
    """Let remote control look and change nothing.

    Whoever may look at workers (Flower) writes to the same exchange as whoever may shut them down: the broker cannot
    tell these apart, so the worker does. What Celery calls an inspect command stays, and the switch of events.
    """
    for name, command in list(Panel.meta.items()):
        if command.type == "control" and name not in HARMLESS_COMMANDS:
            del Panel.meta[name], Panel.data[name]


@celeryd_init.connect  # type: ignore[untyped-decorator]
def _monitoring(**_: Any) -> None:
    """In a worker only, not in `celery inspect` or Flower; before anything counts, forks or connects."""
    if settings.metrics_port is None:
        return
    from history_worker import monitoring

    try:
        monitoring.start(settings.metrics_host, settings.metrics_port)
    except monitoring.CannotListen as error:
        sys.exit(f"history worker: {error}")


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def _cycles(**_: Any) -> None:
    """Before the pool forks: its processes share what is not looked at."""
    cycles.look_rarely()


@celeryd_after_setup.connect  # type: ignore[untyped-decorator]
def _connections(sender: str, conf: Any, **_: Any) -> None:
    if topology.is_amqp(conf.broker_url):
        conf.broker_transport_options = {
            **conf.broker_transport_options,
            # A broker that stops in the middle of a conversation would otherwise be waited for without end.
            "read_timeout": ANSWER_S,
            "write_timeout": ANSWER_S,
            # The broker's lists then show a worker's connections under its name.
            "client_properties": {"connection_name": sender},
        }
