"""`flixtrail watch`: shows the work queue live: waiting, unacknowledged, redelivered and stored."""

from __future__ import annotations

import sqlite3
import sys
from collections import deque
from collections.abc import Mapping
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
from local import view_counts
from local.queue import Figures, Queue, QueueAway
from local.running_demo import Running, Worker
from local.state import State
from local.supervisor import SupervisorAway
from local.unacknowledged import Frozen, note_frozen, notes, number, told_by
from streaming_app.recording.outbox import waiting_in

REFRESH_S = 0.5
#: Seconds for which a number that went up stays bright.
BRIGHT_S = 3
#: Number of recent occurrences shown below the figures.
EVENTS = 8
#: Rates are averages over this many seconds, so that they do not flicker.
RATE_WINDOW_S = 5
WIDTH_OF_BAR = 40
#: Columns of a worker's row without its bar.
WIDTH_OF_FIGURES = 48
#: Seconds between two requests for a worker's metrics, because each costs it some milliseconds of CPU time.
KNOWN_EVERY_S = 2

STATE_STYLE = {"running": "green", "frozen": "cyan", "stopped": "dim", "starting": "yellow"}


@click.command()
@click.option("--once", is_flag=True, help="Print the figures once, and end.")
@state_option
def command(state: Path, *, once: bool) -> None:
    """Watch the work queue until Ctrl-C. Try `flixtrail workers kill` while `flixtrail send --slow` runs.

    \b
    ready        messages that wait for a worker
    unacked      messages that a worker has and has not acknowledged
    redelivered  messages that were delivered again, because the worker that had them is gone
    dead         dead letters: see `flixtrail dead list`
    outbox       views that were accepted while the broker was away, and wait on the streaming app's disk

    came again   views that were stored before: a redelivery of a written message, or the same id sent twice

    Views are counted since the streaming app started. If the output is a file or a pipe, it gets a line whenever
    something changes.
    """  # noqa: D301 (click's \b)
    running = Running(State(state))
    observer = Observer(running)
    console = console_for_figures()
    observer.look()
    if once:
        sleep(REFRESH_S)  # rates need two measurements
        console.print(picture(observer.look(), console.width))
    elif console.is_terminal and not console.is_dumb_terminal:
        draw(observer, console)
    else:
        tell(observer, console)


def console_for_figures() -> Console:
    """Make a console. If there is no terminal, it writes no colours or control characters, whatever the environment
    says.
    """
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, force_terminal=False, color_system=None)


def draw(observer: Observer, console: Console) -> None:
    """Draw the figures on a terminal until Ctrl-C or the end of the demo. The last picture stays."""
    seen = observer.look()
    ended = False
    with Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                live.update(picture(seen, console.width), refresh=True)
                sleep(REFRESH_S)
                seen = observer.look()
        except KeyboardInterrupt:
            pass
        except SupervisorAway:
            ended = True
    console.print(picture(seen, console.width))
    if ended:
        console.print("The demo has ended.")


def tell(observer: Observer, console: Console) -> None:
    """Write to a file or a pipe: a line when a figure has changed, and one for each occurrence."""
    before = ""
    try:
        while True:
            view = observer.look()
            for event in observer.news():
                console.print(Text.from_markup(event), soft_wrap=True)
            if (now := line(view)) != before:
                console.print(f"{datetime.now():%H:%M:%S}  {now}", soft_wrap=True, markup=False)  # noqa: DTZ005 (as above)
                console.file.flush()
                before = now
            sleep(REFRESH_S)
    except KeyboardInterrupt:
        return
    except SupervisorAway:
        console.print("The demo has ended.")


def line(view: View) -> str:
    """Format the figures of one moment as a line."""
    queue = "the broker does not answer"
    if figures := view.figures:
        queue = (
            f"ready {figures.ready}  unacked {figures.unacked}  redelivered {figures.redelivered}  dead {figures.dead}"
        )
    holds = "  ".join(f"{worker.name} {worker.state} {_held_as_text(view, worker)}" for worker in view.workers)
    views = (
        f"accepted {_number(view.accepted)}  outbox {_number(view.outbox)}  stored {_number(view.stored)}  "
        f"came again {view.came_again}"
    )
    return f"{queue}  |  {views}  |  {holds}"


@dataclass
class View:
    """The figures of one moment. `accepted` and `stored` have rates per second. None: there was no answer."""

    figures: Figures | None
    workers: list[Worker]
    accepted: int | None
    stored: int | None
    outbox: int | None = 0
    #: Views that were stored before and came again. They changed nothing.
    came_again: int = 0
    #: Since when views are counted, in seconds since 1970. 0: unknown.
    since: float = 0.0
    #: Unacknowledged messages by worker. A worker that is missing here did not answer.
    held: Mapping[str, int] = field(default_factory=dict)
    #: What is known about workers that are frozen now, by name.
    frozen: Mapping[str, Frozen] = field(default_factory=dict)
    accepted_rate: float = 0.0
    stored_rate: float = 0.0
    learner_mode: bool = False
    redelivered_is_new: bool = False
    events: list[str] = field(default_factory=list)


class Observer:
    """Takes the figures repeatedly, and remembers enough to say what changed."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._queue: Queue = running.queue()
        #: The last count of every worker process that was seen. A killed process keeps its last count.
        self._known: dict[tuple[str, int | None], int] = {}
        self._known_at = float("-inf")
        self._frozen: dict[str, Frozen] = {}
        self._told = 0
        self._before: View | None = None
        #: What each worker process had when it was last asked, and the time before that. In the moment of its death, a
        #: worker has nothing any more or does not answer, so the larger of the two is told.
        self._lately: dict[tuple[str, int | None], deque[int]] = {}
        self._redelivered_at = 0.0
        self._rates: deque[tuple[float, int | None, int | None]] = deque()
        self._events: deque[str] = deque(maxlen=EVENTS)

    def look(self) -> View:
        """Take the figures now. Raises SupervisorAway when the demo has ended."""
        try:
            figures = self._queue.figures()
        except QueueAway:
            figures = None
        workers = self._running.workers()
        view = View(
            figures=figures,
            workers=workers,
            accepted=view_counts.accepted(self._running.web_url),
            stored=self._running.stored(),
            outbox=_in_outboxes(self._running.state),
            came_again=self._came_again(workers),
            since=self._running.app_began_at(),
            frozen=self._frozen_of(workers),
            learner_mode=self._running.learner_mode,
        )
        view.held = self._held(view)
        for worker in workers:
            if worker.name in view.held:
                lately = self._lately.setdefault((worker.name, worker.pid), deque(maxlen=2))
                lately.append(view.held[worker.name])
        self._rate(view)
        if self._before is not None:
            self._compare(self._before, view)
        view.redelivered_is_new = monotonic() - self._redelivered_at < BRIGHT_S
        view.events = list(self._events)
        self._before = view
        return view

    def news(self) -> list[str]:
        """Return what has happened since the last call."""
        new = list(self._events)[-self._told :] if self._told else []
        self._told = 0
        return new

    def _came_again(self, workers: list[Worker]) -> int:
        if monotonic() - self._known_at > KNOWN_EVERY_S:
            self._known_at = monotonic()
            for worker in workers:
                if worker.state == "running" and worker.metrics_url:
                    known = view_counts.known(worker.metrics_url)
                    if known is not None:
                        self._known[worker.name, worker.pid] = known
        return sum(self._known.values())

    def _frozen_of(self, workers: list[Worker]) -> dict[str, Frozen]:
        """Return the notes of the frozen workers: when the broker redelivers their messages. Makes
        missing notes now.
        """
        now: dict[str, Frozen] = {}
        for worker in workers:
            if worker.state != "frozen":
                continue
            known = self._frozen.get(worker.name) or notes(self._running.state).get(worker.name)
            if known is None or known.pid != worker.pid:
                known = note_frozen(self._running, worker)
            now[worker.name] = known
        self._frozen = now
        return now

    def _held(self, view: View) -> Mapping[str, int]:
        if not view.learner_mode:
            return {worker.name: 0 for worker in view.workers} | dict(view.figures.held if view.figures else {})
        # pgmq does not store who has read a message, so each worker is asked.
        held: dict[str, int] = {}
        for worker in view.workers:
            if worker.name in view.frozen:
                note = view.frozen[worker.name]
                held[worker.name] = note.messages if note.left_s else 0
            elif told := told_by(self._running, worker):
                held[worker.name] = told.messages
        return held

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
                held = max(self._lately.pop((old.name, old.pid), [0]))
                self._say(f"[red]{worker.name} is gone[/]{_what_it_held(held)}")
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
            self._say(f"[bold yellow]{number(now.redelivered - before.redelivered, 'message')} delivered again[/]")
        if now.dead > before.dead:
            self._say(f"[bold red]dead letters: {now.dead - before.dead} more[/]")

    def _say(self, what: str) -> None:
        self._told += 1
        self._events.append(f"[dim]{datetime.now():%H:%M:%S}[/]  {what}")  # noqa: DTZ005 (the reader's own clock)


def _in_outboxes(state: State) -> int | None:
    try:
        return waiting_in(state.outbox)
    except sqlite3.Error:
        return None


def _what_it_held(held: int) -> str:
    return f": it held {number(held, 'message')} a moment before" if held else ""


def picture(view: View, width: int = 80) -> RenderableType:
    """Draw the figures of one moment."""
    bar = max(4, min(WIDTH_OF_BAR, width - WIDTH_OF_FIGURES))
    parts: list[RenderableType] = [_queue(view, bar), Text(), _workers(view, bar)]
    parts += [Text(_given_up(view, name, note), style="cyan") for name, note in view.frozen.items()]
    parts += [Text(), _counts(view)]
    if view.events:
        parts += [Text(), *(Text.from_markup(event) for event in view.events)]
    return Group(*parts)


def _given_up(view: View, name: str, note: Frozen) -> str:
    """Format the countdown until a frozen worker's messages go to another worker."""
    broker = "PostgreSQL shows its messages to others" if view.learner_mode else "RabbitMQ gives it up"
    if note.left_s:
        return f"{name}: {broker} in {note.left_s} s"
    if view.held.get(name):
        return f"{name}: {broker} any moment now"
    return f"{name}: others have its messages now"


def _queue(view: View, bar: int) -> RenderableType:
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
        f"[blue]{_bar(figures.ready, bar)}[/]",
    )
    return table


def _workers(view: View, bar: int) -> RenderableType:
    table = Table("worker", "state", "process", "holds", "", box=None, pad_edge=False)
    for worker in view.workers:
        table.add_row(
            worker.name,
            Text(worker.state, style=STATE_STYLE[worker.state]),
            str(worker.pid or ""),
            _held_as_text(view, worker),
            f"[magenta]{_bar(view.held.get(worker.name, 0), bar)}[/]",
        )
    return table


def _held_as_text(view: View, worker: Worker) -> str:
    held = view.held.get(worker.name)
    return "?" if held is None else f"{held:,}"


def _counts(view: View) -> RenderableType:
    since = f" since {datetime.fromtimestamp(view.since):%H:%M:%S}" if view.since else ""  # noqa: DTZ006 (as above)
    table = Table(f"views{since}", "", "a second", box=None, pad_edge=False)
    table.add_row("accepted", _number(view.accepted), f"{view.accepted_rate:,.0f}")
    table.add_row("in the outbox", Text(_number(view.outbox), style="bold yellow" if view.outbox else ""), "")
    table.add_row("stored", _number(view.stored), f"{view.stored_rate:,.0f}")
    table.add_row("came again, changed nothing", f"{view.came_again:,}", "")
    return table


def _number(value: int | None) -> str:
    return "away" if value is None else f"{value:,}"


def _bar(length: int, most: int) -> str:
    return "█" * min(length, most) + ("…" if length > most else "")
