"""`flixtrail watch`: the work queue, live: what waits, who holds what, what comes back, what is stored."""

from __future__ import annotations

import sqlite3
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import monotonic, sleep

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flixtrail.commands.options import state_option
from flixtrail.local import counts
from flixtrail.local.queue import Figures, Queue, QueueAway
from flixtrail.local.running import Running, Worker
from flixtrail.local.state import State
from flixtrail.local.supervisor import SupervisorAway
from streaming_app.outbox import waiting_in

REFRESH_S = 0.5
#: How long a number that went up stays bright.
BRIGHT_S = 3
#: Things that happened, shown below the figures.
EVENTS = 8
#: Rates are over this long, so that they do not flicker.
RATE_WINDOW_S = 5
WIDTH_OF_BAR = 40

STATE_STYLE = {"running": "green", "frozen": "cyan", "stopped": "dim", "starting": "yellow"}


@click.command()
@click.option("--once", is_flag=True, help="Print one picture and leave.")
@state_option
def command(state: Path, *, once: bool) -> None:
    """Watch the work queue until Ctrl-C.

    \b
    ready        messages that wait for a worker
    unacked      delivered to a worker, which has not said yet that they are done
    redelivered  delivered again, because the worker that had them is gone
    dead         given up: see `flixtrail dead list`
    outbox       accepted while the broker was away: on the streaming app's disk until it is back

    One message carries one view or hundreds. Try `flixtrail workers kill` while `flixtrail send 20000` runs.
    """  # noqa: D301 (click's \b)
    running = Running(State(state))
    observer = Observer(running)
    console = Console(highlight=False)
    if once:
        observer.look()
        sleep(REFRESH_S)  # for the rates
        console.print(picture(observer.look()))
        return
    try:
        with Live(picture(observer.look()), console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                sleep(REFRESH_S)
                live.update(picture(observer.look()), refresh=True)
    except KeyboardInterrupt:
        return
    except SupervisorAway:
        console.print("The demo has ended.")


@dataclass
class View:
    """One moment. `accepted` and `stored` with their rates a second; None: nobody answered."""

    figures: Figures | None
    workers: list[Worker]
    accepted: int | None
    stored: int | None
    outbox: int | None = 0
    accepted_rate: float = 0.0
    stored_rate: float = 0.0
    learner_mode: bool = False
    redelivered_is_new: bool = False
    events: list[str] = field(default_factory=list)


class Observer:
    """Looks again and again, and remembers enough to say what changed."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._queue: Queue = running.queue()
        self._history = counts.History(running.database_url)
        self._before: View | None = None
        self._redelivered_at = 0.0
        self._rates: deque[tuple[float, int | None, int | None]] = deque()
        self._events: deque[str] = deque(maxlen=EVENTS)

    def look(self) -> View:
        """The moment. Raises SupervisorAway when the demo has ended."""
        try:
            figures = self._queue.figures()
        except QueueAway:
            figures = None
        view = View(
            figures=figures,
            workers=self._running.workers(),
            accepted=counts.accepted(self._running.web_url),
            stored=self._history.stored(),
            outbox=_in_outboxes(self._running.state),
            learner_mode=self._running.document["broker"]["kind"] == "embedded",
        )
        self._rate(view)
        if self._before is not None:
            self._compare(self._before, view)
        view.redelivered_is_new = monotonic() - self._redelivered_at < BRIGHT_S
        view.events = list(self._events)
        self._before = view
        return view

    def _rate(self, view: View) -> None:
        now = monotonic()
        self._rates.append((now, view.accepted, view.stored))
        while now - self._rates[0][0] > RATE_WINDOW_S:
            self._rates.popleft()
        then, accepted, stored = self._rates[0]
        elapsed = max(now - then, 0.001)
        view.accepted_rate = max(0, (view.accepted or 0) - (accepted or 0)) / elapsed
        view.stored_rate = max(0, (view.stored or 0) - (stored or 0)) / elapsed

    def _compare(self, before: View, now: View) -> None:
        known = {worker.name: worker for worker in before.workers}
        for worker in now.workers:
            old = known.get(worker.name)
            if old is None:
                self._say(f"[green]{worker.name} was added[/]")
            elif worker.pid != old.pid and old.pid:
                self._say(f"[red]{worker.name} is gone[/]{_what_it_held(before, worker.name)}")
            elif worker.state != old.state:
                self._say(f"{worker.name}: {old.state} -> [{STATE_STYLE[worker.state]}]{worker.state}[/]")
        self._compare_figures(before.figures, now.figures)

    def _compare_figures(self, before: Figures | None, now: Figures | None) -> None:
        if before is None or now is None:
            if before is not now:
                self._say("[red]the broker does not answer[/]" if now is None else "[green]the broker is back[/]")
            return
        if now.redelivered > before.redelivered:
            self._redelivered_at = monotonic()
            self._say(f"[bold yellow]{now.redelivered - before.redelivered} messages were delivered again[/]")
        if now.dead > before.dead:
            self._say(f"[bold red]{now.dead - before.dead} messages are dead letters now[/]")

    def _say(self, what: str) -> None:
        self._events.append(f"[dim]{datetime.now():%H:%M:%S}[/]  {what}")  # noqa: DTZ005 (the reader's own clock)


def _in_outboxes(state: State) -> int | None:
    try:
        return waiting_in(state.outbox)
    except sqlite3.Error:
        return None


def _what_it_held(before: View, worker: str) -> str:
    held = before.figures.held.get(worker, 0) if before.figures else 0
    return f": {held} messages that it held go back to the queue" if held else ""


def picture(view: View) -> RenderableType:
    """The moment, drawn."""
    parts: list[RenderableType] = [_queue(view), Text(), _workers(view), Text(), _counts(view)]
    if view.events:
        parts += [Text(), *(Text.from_markup(event) for event in view.events)]
    return Group(*parts)


def _queue(view: View) -> RenderableType:
    if view.figures is None:
        return Text.from_markup("queue [bold]history[/]   [red]the broker does not answer[/]")
    figures = view.figures
    table = Table("queue", "ready", "unacked", "redelivered", "dead", "", box=None, pad_edge=False)
    table.add_row(
        "[bold]history[/]",
        f"{figures.ready:,}",
        f"{figures.unacked:,}",
        Text(f"{figures.redelivered:,}", style="bold black on yellow" if view.redelivered_is_new else ""),
        Text(f"{figures.dead:,}", style="bold red" if figures.dead else ""),
        f"[blue]{_bar(figures.ready)}[/]",
    )
    return table


def _workers(view: View) -> RenderableType:
    table = Table("worker", "state", "process", "holds", "", box=None, pad_edge=False)
    for worker in view.workers:
        held = view.figures.held.get(worker.name, 0) if view.figures else 0
        table.add_row(
            worker.name,
            Text(worker.state, style=STATE_STYLE[worker.state]),
            str(worker.pid or ""),
            # pgmq does not write down who has read a message.
            "?" if view.learner_mode else f"{held:,}",
            f"[magenta]{_bar(held)}[/]",
        )
    return table


def _counts(view: View) -> RenderableType:
    table = Table("views", "", "a second", box=None, pad_edge=False)
    table.add_row("accepted", _number(view.accepted), f"{view.accepted_rate:,.0f}")
    table.add_row("in the outbox", Text(_number(view.outbox), style="bold yellow" if view.outbox else ""), "")
    table.add_row("stored", _number(view.stored), f"{view.stored_rate:,.0f}")
    return table


def _number(value: int | None) -> str:
    return "away" if value is None else f"{value:,}"


def _bar(number: int) -> str:
    return "█" * min(number, WIDTH_OF_BAR) + ("…" if number > WIDTH_OF_BAR else "")
