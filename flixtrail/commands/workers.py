"""`flixtrail workers`: adds, stops, kills, freezes and thaws history workers, and says what happens to
their messages.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any

import click

from flixtrail.commands.options import Group, Name
from local import service_parts
from local.errors import DemoError
from local.pasteable_commands import flixtrail_command
from local.processes import process_tree, signal_all
from local.queue import VISIBILITY_TIMEOUT_S
from local.running_demo import RunningDemo, Worker
from local.state import State
from local.state_option import state_option
from local.unacknowledged import FrozenWorker, Unacknowledged, record_frozen, unacknowledged_by
from service.waiting import wait_until

#: Seconds to wait for a worker to stop. It finishes what it writes first; after `stop_wait_s` the supervisor kills it.
STOP_TIMEOUT_S = 15


#: The short form of a worker's NAME.
NUMBER = re.compile(r"[1-9][0-9]{0,3}")


@click.group(cls=Group)
def command() -> None:
    """Add, stop, kill, freeze or thaw a history worker of the running demo.

    NAME is `history-worker-2`, or just `2`. Watch the effect with `flixtrail watch`, while `flixtrail send --slow`
    runs.
    """


def worker_command(function: Callable[[RunningDemo, str | None], None]) -> Callable[[RunningDemo, str | None], None]:
    """Make a subcommand that gets the running demo and an optional worker name."""

    @command.command(name=function.__name__, help=function.__doc__)
    @click.argument("name", required=False, type=Name())
    @state_option
    @wraps(function)
    def run(name: str | None, state: Path, **_: Any) -> None:
        function(RunningDemo(State(state)), name)

    return function


@worker_command
def add(running: RunningDemo, name: str | None) -> None:
    """Start one more worker. With NAME: start a worker that was stopped."""
    names = [worker.name for worker in running.workers()]
    if name is None:
        name = next(wanted for n in count(1) if (wanted := f"{service_parts.WORKER}{n}") not in names)
    elif NUMBER.fullmatch(name):
        name = f"{service_parts.WORKER}{name}"
    if name in names:
        if running.worker(name).pid:
            raise DemoError(f"{name} runs already")
        running.supervisor.start(name)
    else:
        if not NUMBER.fullmatch(name.removeprefix(service_parts.WORKER)):
            raise DemoError(f"NAME: {name!r}: expected {service_parts.WORKER} and a number from 1 to 9999")
        running.supervisor.add(service_parts.worker(running.state, name, addresses(running)))
    click.echo(f"{name} was started")


@worker_command
def stop(running: RunningDemo, name: str | None) -> None:
    """Stop a worker in order. It finishes what it writes, and RabbitMQ requeues its other messages. It stays stopped.
    Without NAME, this is the last worker.
    """
    workers = [worker for worker in running.workers() if worker.pid]
    worker = last(workers) if name is None else running.worker(name)
    signal_worker(worker, signal.SIGCONT)  # a frozen worker does not react to a stop signal
    running.supervisor.stop(worker.name)
    if not wait_until(lambda: not running.status()[worker.name].pid, STOP_TIMEOUT_S):
        raise DemoError(f"{worker.name} has not stopped within {STOP_TIMEOUT_S} s")
    click.echo(f"{worker.name} was stopped. This starts it again: {flixtrail_command()} workers add {worker.name}")


@worker_command
def kill(running: RunningDemo, name: str | None) -> None:
    """Kill a worker and its children (kill -9). Without NAME, this is the worker with the most messages. Its messages
    are delivered to another worker, and the supervisor starts it again.
    """
    worker = choose_worker(running, name, {"running", "frozen"})
    unacknowledged = unacknowledged_by(running, worker)
    signal_worker(worker, signal.SIGKILL)
    click.echo(f"{worker.name} was killed (process {worker.pid}){unacknowledged_text(unacknowledged)}")
    click.echo(redelivery_text(running, unacknowledged))


def unacknowledged_text(unacknowledged: Unacknowledged | None) -> str:
    return "" if unacknowledged is None else f"; it had {unacknowledged}"


def redelivery_text(running: RunningDemo, unacknowledged: Unacknowledged | None) -> str:
    """Describe in a sentence what happens to the messages of a killed worker."""
    if unacknowledged is not None and not unacknowledged.messages:
        return (
            "So no message has to be delivered again. To kill a worker that has unacknowledged messages, send views "
            f"slowly, and kill it meanwhile: {flixtrail_command()} send --slow"
        )
    if running.learner_mode:
        return (
            f"At the latest {VISIBILITY_TIMEOUT_S} s after it read them, PostgreSQL shows these messages again. Then "
            "another worker gets them."
        )
    return "RabbitMQ sees that the connection is closed, and delivers these messages to another worker at once."


@worker_command
def freeze(running: RunningDemo, name: str | None) -> None:
    """Freeze a worker (SIGSTOP), to see what happens if a worker hangs. It lives and keeps its messages, but does
    nothing. Without NAME, this is the worker with the most messages.

    \b
    On RabbitMQ: a frozen worker sends no heartbeats (one every 10 s). RabbitMQ closes its connection after 20 to 30 s
    and delivers its messages to another worker.
    In learner mode: messages come back 15 s after the worker read them.
    """  # noqa: D301 (click's \b)
    worker = choose_worker(running, name, {"running"})
    if worker.state == "frozen":
        raise DemoError(
            f"{worker.name} is frozen already. This lets it continue: {flixtrail_command()} workers thaw {worker.name}"
        )
    note = record_frozen(running, worker)
    signal_worker(worker, signal.SIGSTOP)
    click.echo(f"{worker.name} is frozen (process {worker.pid}); it has {Unacknowledged(note.messages, note.views)}")
    click.echo(frozen_text(running, note))
    click.echo(f"kill it now        {flixtrail_command()} workers kill {worker.name}")
    click.echo(f"let it continue    {flixtrail_command()} workers thaw {worker.name}")


def frozen_text(running: RunningDemo, note: FrozenWorker) -> str:
    """Describe what happens to a frozen worker's messages, and when."""
    when = datetime.fromtimestamp(note.gives_up_at).strftime("%H:%M:%S")  # noqa: DTZ006 (the reader's own clock)
    if running.learner_mode:
        return (
            f"In {note.left_s} s at the latest, at {when}, PostgreSQL shows its messages to the other workers. It "
            "reads no new messages meanwhile."
        )
    return (
        "RabbitMQ has not noticed it yet, and continues to deliver to it. Because the worker's heartbeats are missing, "
        f"it closes the connection in about {note.left_s} s, at {when}. Then another worker gets the messages."
    )


@worker_command
def thaw(running: RunningDemo, name: str | None) -> None:
    """Let a frozen worker continue. Without NAME, all frozen workers continue."""
    frozen = [worker for worker in running.workers() if worker.state == "frozen"]
    workers = frozen if name is None else [running.worker(name)]
    if not frozen or workers[0].state != "frozen":
        raise DemoError("no worker is frozen" if not frozen else f"{workers[0].name} is not frozen")
    for worker in workers:
        signal_worker(worker, signal.SIGCONT)
        click.echo(f"{worker.name} continues")


def choose_worker(running: RunningDemo, name: str | None, states: set[str]) -> Worker:
    """Return the worker of that name. Without a name: the worker in one of these states that has the most messages."""
    if name is not None:
        worker = running.worker(name)
        if not worker.pid:
            raise DemoError(f"{worker.name} does not run just now")
        return worker
    workers = [worker for worker in running.workers() if worker.state in states]
    if not workers:
        raise DemoError("no worker runs just now")
    return max(workers, key=lambda worker: (unacknowledged_by(running, worker) or Unacknowledged(0)).messages)


def last(workers: list[Worker]) -> Worker:
    """Return the worker that was added last."""
    if not workers:
        raise DemoError("no worker runs just now")
    return workers[-1]


def signal_worker(worker: Worker, number: int) -> None:
    """Send a signal to a worker and its children. The parent comes first, because it starts dead
    children again.
    """
    signal_all(process_tree(worker.pid), number)


def addresses(running: RunningDemo) -> service_parts.Addresses:
    """Return the addresses that a new worker needs."""
    broker = running.document["broker"]
    return service_parts.Addresses(
        web_port=0,
        history_api_port=0,
        flower_port=0,
        broker_url=broker["url"],
        management_url=broker["management_url"],
        database_url=running.database_url,
    )
