"""`flixtrail demo`: runs everything on this machine, in one terminal."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import click

from local.errors import AlreadyRunning, Interrupted, PortTaken, WrongSetting

#: Variables that the demo sets for its parts, whatever the environment says (local/service_parts.py).
SET_BY_THE_DEMO = frozenset(
    {"HOST", "PORT", "VIDEOS", "CACHE", "OUTBOX", "SECRET_KEY", "HISTORY_API_URL", "HISTORY_API_TOKEN"}
)

#: Settings that a suggested command repeats if they are not the defaults.
REPEATED_SETTINGS = ("state", "port", "workers", "broker", "videos")


@click.command(
    context_settings={"show_default": True},
    epilog="Every option can be an environment variable: PORT=8100 WORKERS=4 make demo",
)
@click.option("--port", envvar="PORT", default="8000", help="The port of the streaming app, on 127.0.0.1.")
@click.option("--workers", envvar="WORKERS", default="2", help="How many history workers write views to the database.")
@click.option(
    "--broker",
    envvar="BROKER",
    default="auto",
    help="`rabbitmq`: a private RabbitMQ node (needs rabbitmq-server). `embedded`: learner mode, PostgreSQL keeps "
    "the messages. `auto`: RabbitMQ if it is installed.",
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
    """Start everything on this machine: PostgreSQL, the broker, the streaming app, the history API and history workers.
    With RabbitMQ, it starts Flower, too. It prints `ready: http://...` and runs until Ctrl-C.

    \b
    flixtrail demo
    flixtrail demo --port 8100 --videos ~/films

    If you start it again, the history is still there. A part that dies is started again: try `flixtrail workers kill`.
    """  # noqa: D301 (click's \b)
    from local.settings import DemoSettings
    from service.settings import SettingsError, read

    try:
        settings = read(DemoSettings, {**address_parts(), **{name.upper(): value for name, value in options.items()}})
        check_part_settings()
    except SettingsError as error:
        raise WrongSetting(str(error)) from None

    from local import connection_check
    from local.stack import Stack
    from local.state import State
    from local.terminal_output import TerminalOutput

    # New files are for this user only: secrets, logs and the viewers' history.
    os.umask(0o077)
    state = State(settings.state)
    state.make()
    try:
        with state.lock():
            check_port(settings)
            connection_check.check(settings)
            try:
                run(Stack(settings, state, TerminalOutput()))
            except OSError as error:
                raise state.write_error(error) if is_about_folder(error, state.folder) else error from None
    except AlreadyRunning as error:
        raise AlreadyRunning(f"{error}\n{how_to_start_another(settings)}") from None


def check_port(settings: Any) -> None:
    """Check that the port is free. Raises PortTaken, with a command that uses a free port."""
    from local import ports

    if why := ports.bind_error(settings.port):
        free = ports.next_free(settings.port)
        raise PortTaken(f"PORT: {why}. Choose another: {demo_command(settings, port=free)}")


def how_to_start_another(settings: Any) -> str:
    """Describe what you can do if the state folder is in use."""
    from local import ports

    state = next(path for number in count(2) if not (path := Path(f"{settings.state}{number}")).exists())
    port = settings.port if ports.is_free(settings.port) else ports.next_free(settings.port)
    return (
        "Stop it with Ctrl-C in its terminal, or start another one beside it:\n"
        f"  {demo_command(settings, state=state, port=port)}"
    )


def demo_command(settings: Any, **changed: Any) -> str:
    """Return the command that starts this demo with other settings. You can paste it in your current folder.

    Addresses of a broker or a database are left out, because of their passwords.
    """
    chosen = {**{name: getattr(settings, name) for name in REPEATED_SETTINGS}, **changed}
    usual = {name: type(settings).model_fields[name].default for name in chosen}
    assigned = [f"{name.upper()}={shlex.quote(str(v))}" for name, v in chosen.items() if v != usual[name]]
    if "MAKELEVEL" not in os.environ:
        program = os.path.relpath(Path(sys.prefix, "bin", "flixtrail"))
        return " ".join([*assigned, shlex.quote(program), "demo"])
    here, caller = Path.cwd(), Path(os.environ.get("CALLED_FROM") or ".")  # these differ after `make -C FOLDER demo`
    elsewhere = os.access(caller, os.X_OK) and not caller.samefile(here)
    return " ".join([*assigned, "make", *(["-C", shlex.quote(str(here))] if elsewhere else []), "demo"])


def is_about_folder(error: OSError, folder: Path) -> bool:
    """Return whether the error is about the state folder."""
    name = error.filename
    return error.errno in {errno.ENOSPC, errno.EDQUOT} or (isinstance(name, str) and name.startswith(str(folder)))


def address_parts() -> dict[str, str]:
    """Return the variables that belong to the addresses: AMQP_PASSWORD, AMQP_CA_FILE, DATABASE_PASSWORD."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("AMQP_", "DATABASE_")) and not name.endswith("_URL")
    }


def check_part_settings() -> None:
    """Check the settings of the parts now, such as OUTBOX_BYTES. Otherwise a part with a wrong one ends again and
    again.

    Raises SettingsError.
    """
    from history_worker.settings import WorkerSettings
    from service.settings import read
    from streaming_app.settings import StreamingSettings

    inherited = {name: value for name, value in os.environ.items() if name not in SET_BY_THE_DEMO}
    read(StreamingSettings, inherited)
    read(WorkerSettings, {**inherited, "DATABASE_URL": "postgresql:///", "DATABASE_PASSWORD": ""})


def run(stack: Any) -> None:
    """Run the demo from start to end. Exit status 1: a part did not start."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stack.ask_to_stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    from local.ready_message import ready_message

    stack.end_leftovers()
    try:
        stack.start()
        stack.output.print_plain(f"ready: {stack.addresses.web_url}")
        stack.output.print(ready_message(stack))
        stack.watch()
    except Interrupted:
        pass  # Ctrl-C during the start
    finally:
        stack.stop()
    stack.output.print(f"stopped. The history stays in {stack.state.folder}")
