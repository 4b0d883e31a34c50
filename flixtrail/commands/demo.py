"""`flixtrail demo`: everything on this machine, in one terminal."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

import click

from flixtrail.local.errors import Interrupted, WrongSetting

#: What the demo itself tells its parts, whatever the environment says (flixtrail/local/services.py).
GIVEN = frozenset({"HOST", "PORT", "VIDEOS", "CACHE", "OUTBOX", "SECRET_KEY", "HISTORY_API_URL", "HISTORY_API_TOKEN"})


@click.command(
    context_settings={"show_default": True},
    epilog="Every option can be an environment variable: PORT=8100 WORKERS=4 make demo",
)
@click.option("--port", envvar="PORT", default="8000", help="Where the streaming app listens, on 127.0.0.1.")
@click.option("--workers", envvar="WORKERS", default="2", help="How many history workers write views to the database.")
@click.option(
    "--broker",
    envvar="BROKER",
    default="auto",
    help="`rabbitmq`: a private RabbitMQ node (needs rabbitmq-server). `embedded`: learner mode, the messages lie in "
    "PostgreSQL. `auto`: RabbitMQ where it is installed.",
)
@click.option(
    "--videos",
    envvar="VIDEOS",
    default="",
    help="A folder of mp4, webm or mkv files. None: three sample clips are made.",
)
@click.option("--state", envvar="STATE", default="./var", help="Where data, logs and sockets are kept.")
@click.option("--amqp-url", envvar="AMQP_URL", default="", help="A broker that runs already; then none is started.")
@click.option(
    "--database-url", envvar="DATABASE_URL", default="", help="A PostgreSQL that runs already; then none is started."
)
def command(**options: str) -> None:
    """Start everything on this machine: PostgreSQL, the broker, the streaming app, the history API, history workers,
    and Flower where the broker is RabbitMQ. Prints `ready: http://...` and runs until Ctrl-C.

    Started again, the history is still there. A part that dies is started again: try `flixtrail workers kill`.
    """
    from flixtrail.local.settings import DemoSettings
    from view_events.settings import SettingsError, read

    try:
        settings = read(DemoSettings, {name.upper(): value for name, value in options.items()})
        check_parts()
    except SettingsError as error:
        raise WrongSetting(str(error)) from None

    from flixtrail.local.stack import Stack
    from flixtrail.local.state import State
    from flixtrail.local.telling import Teller

    state = State(settings.state)
    state.make()
    with state.lock():
        run(Stack(settings, state, Teller()))


def check_parts() -> None:
    """See now what would only end the parts, again and again: settings of their own, such as OUTBOX_BYTES.

    Raises SettingsError.
    """
    from history_worker.settings import WorkerSettings
    from streaming_app.settings import StreamingSettings
    from view_events.settings import read

    inherited = {name: value for name, value in os.environ.items() if name not in GIVEN}
    read(StreamingSettings, inherited)
    read(WorkerSettings, inherited | {"DATABASE_URL": "postgresql:///"})


def run(stack: Any) -> None:
    """From the first process to the last. Exit status 1 when a part did not come up."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stack.ask_to_stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    from flixtrail.local.greeting import greeting

    stack.clear()
    try:
        stack.start()
        stack.teller.plain(f"ready: {stack.addresses.web_url}")
        stack.teller.say(greeting(stack))
        stack.watch()
    except Interrupted:
        pass  # Ctrl-C while it was starting
    finally:
        stack.stop()
    stack.teller.say(f"stopped. The history stays in {stack.state.folder}")
