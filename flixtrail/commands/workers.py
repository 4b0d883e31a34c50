"""`flixtrail workers`: add, stop, kill, freeze and thaw history workers, and see what becomes of their messages."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import wraps
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import click
import psutil

from flixtrail.commands.options import state_option
from flixtrail.local import services
from flixtrail.local.errors import DemoError
from flixtrail.local.queue import QueueAway
from flixtrail.local.running import Running, Worker
from flixtrail.local.state import State
from flixtrail.local.supervisor import POLL_S, tree

#: A worker finishes what it writes before it stops; past `stop_wait_s` the supervisor kills it.
STOP_DEADLINE_S = 15


@click.group()
def command() -> None:
    """Add, stop, kill, freeze or thaw a history worker of the running demo.

    NAME is `history-worker-2`, or just `2`.
    """


def worker_command(function: Callable[[Running, str | None], None]) -> Callable[[Running, str | None], None]:
    """A subcommand that takes the running demo and maybe a worker's name."""

    @command.command(name=function.__name__, help=function.__doc__)
    @click.argument("name", required=False)
    @state_option
    @wraps(function)
    def run(name: str | None, state: Path, **_: Any) -> None:
        function(Running(State(state)), name)

    return function


@worker_command
def add(running: Running, name: str | None) -> None:
    """Start one more worker, or NAME again that was stopped."""
    names = [worker.name for worker in running.workers()]
    if name is None:
        name = next(wanted for n in count(1) if (wanted := f"{services.WORKER}{n}") not in names)
    elif name.isdigit():
        name = f"{services.WORKER}{name}"
    if name in names:
        if running.worker(name).pid:
            raise DemoError(f"{name} runs already")
        running.supervisor.start(name)
    else:
        if not name.removeprefix(services.WORKER).isdigit():
            raise DemoError(f"NAME: {name!r}: expected {services.WORKER} and a number")
        running.supervisor.add(services.worker(running.state, name, addresses(running)))
    click.echo(f"{name} was started")


@worker_command
def stop(running: Running, name: str | None) -> None:
    """Stop a worker in order: it finishes what it writes, the rest goes back to the queue. It stays stopped."""
    workers = [worker for worker in running.workers() if worker.pid]
    worker = running.worker(name) if name else last(workers)
    signal_all(worker, signal.SIGCONT)  # a frozen one cannot hear that it shall stop
    running.supervisor.stop(worker.name)
    deadline = monotonic() + STOP_DEADLINE_S
    while running.status()[worker.name].pid:
        if monotonic() > deadline:
            raise DemoError(f"{worker.name} has not stopped within {STOP_DEADLINE_S} s")
        sleep(POLL_S)
    click.echo(f"{worker.name} was stopped")


@worker_command
def kill(running: Running, name: str | None) -> None:
    """Kill -9 a worker and its children, by default the one that holds most. The supervisor starts it again."""
    worker = chosen(running, name, {"running", "frozen"})
    signal_all(worker, signal.SIGKILL)
    click.echo(f"{worker.name} was killed (process {worker.pid}); what it held goes to another worker")


@worker_command
def freeze(running: Running, name: str | None) -> None:
    """Freeze a worker (SIGSTOP): it lives, holds its messages, and does nothing. By default the one that holds most."""
    worker = chosen(running, name, {"running"})
    signal_all(worker, signal.SIGSTOP)
    click.echo(f"{worker.name} is frozen (process {worker.pid}); `flixtrail workers thaw` lets it go on")


@worker_command
def thaw(running: Running, name: str | None) -> None:
    """Let a frozen worker go on; by default all that are frozen."""
    workers = [running.worker(name)] if name else [w for w in running.workers() if w.state == "frozen"]
    if not workers:
        raise DemoError("no worker is frozen")
    for worker in workers:
        signal_all(worker, signal.SIGCONT)
        click.echo(f"{worker.name} goes on")


def chosen(running: Running, name: str | None, states: set[str]) -> Worker:
    """The worker of that name; without one, that which holds most messages of all in these states."""
    if name:
        worker = running.worker(name)
        if not worker.pid:
            raise DemoError(f"{worker.name} does not run just now")
        return worker
    workers = [worker for worker in running.workers() if worker.state in states]
    if not workers:
        raise DemoError("no worker runs just now")
    try:
        held = running.queue().figures().held
    except QueueAway:
        held = {}
    return max(workers, key=lambda worker: held.get(worker.name, 0))


def last(workers: list[Worker]) -> Worker:
    """The one that was added last."""
    if not workers:
        raise DemoError("no worker runs just now")
    return workers[-1]


def signal_all(worker: Worker, number: int) -> None:
    """Send a signal to a worker and its children, the parent first: it would start children again that died."""
    for process in tree(worker.pid):
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def addresses(running: Running) -> services.Addresses:
    """What a new worker needs to know."""
    broker = running.document["broker"]
    return services.Addresses(
        web_port=0,
        history_api_port=0,
        flower_port=0,
        broker_url=broker["url"],
        management_url=broker["management_url"],
        database_url=running.database_url,
    )
