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

from local import view_counts
from local.errors import BrokerUnreachable, SupervisorUnreachable
from local.printable import quantity
from local.queue import Queue, QueueFigures
from local.running_demo import RunningDemo, Worker
from local.state import State
from local.state_option import state_option
from local.unacknowledged import FrozenWorker, frozen_workers, record_frozen, reported_by
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
REPEATS_INTERVAL_S = 2

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
    running = RunningDemo(State(state))
    observer = Observer(running)
    console = console_for_figures()
    observer.measure()
    if once:
        sleep(REFRESH_S)  # rates need two measurements
        console.print(render(observer.measure(), console.width))
    elif console.is_terminal and not console.is_dumb_terminal:
        draw_live(observer, console)
    else:
        print_lines(observer, console)


def console_for_figures() -> Console:
    """Make a console. If there is no terminal, it writes no colours or control characters, whatever the environment
    says.
    """
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, force_terminal=False, color_system=None)


def draw_live(observer: Observer, console: Console) -> None:
    """Draw the figures on a terminal until Ctrl-C or the end of the demo. The last figures stay on the screen."""
    seen = observer.measure()
    ended = False
    with Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                live.update(render(seen, console.width), refresh=True)
                sleep(REFRESH_S)
                seen = observer.measure()
        except KeyboardInterrupt:
            pass
        except SupervisorUnreachable:
            ended = True
    console.print(render(seen, console.width))
    if ended:
        console.print("The demo has ended.")


def print_lines(observer: Observer, console: Console) -> None:
    """Write to a file or a pipe: a line when a figure has changed, and one for each occurrence."""
    before = ""
    try:
        while True:
            snapshot = observer.measure()
            for event in observer.new_events():
                console.print(Text.from_markup(event), soft_wrap=True)
            if (now := line(snapshot)) != before:
                console.print(f"{datetime.now():%H:%M:%S}  {now}", soft_wrap=True, markup=False)  # noqa: DTZ005 (as above)
                console.file.flush()
                before = now
            sleep(REFRESH_S)
    except KeyboardInterrupt:
        return
    except SupervisorUnreachable:
        console.print("The demo has ended.")


def line(snapshot: Snapshot) -> str:
    """Format the figures of one moment as a line."""
    queue = "the broker does not answer"
    if figures := snapshot.figures:
        queue = (
            f"ready {figures.ready}  unacked {figures.unacked}  redelivered {figures.redelivered}  dead {figures.dead}"
        )
    workers = "  ".join(
        f"{worker.name} {worker.state} {_unacked_text(snapshot, worker)}" for worker in snapshot.workers
    )
    views = (
        f"accepted {_number(snapshot.accepted)}  outbox {_number(snapshot.outbox)}  stored {_number(snapshot.stored)}  "
        f"came again {snapshot.came_again}"
    )
    return f"{queue}  |  {views}  |  {workers}"


@dataclass
class Snapshot:
    """The figures of one moment. `accepted` and `stored` have rates per second. None: there was no answer."""

    figures: QueueFigures | None
    workers: list[Worker]
    accepted: int | None
    stored: int | None
    outbox: int | None = 0
    #: Views that were stored before and came again. They changed nothing.
    came_again: int = 0
    #: Since when views are counted, in seconds since 1970. 0: unknown.
    since: float = 0.0
    #: Unacknowledged messages by worker. A worker that is missing here did not answer.
    unacked_by_worker: Mapping[str, int] = field(default_factory=dict)
    #: What is known about workers that are frozen now, by name.
    frozen: Mapping[str, FrozenWorker] = field(default_factory=dict)
    accepted_rate: float = 0.0
    stored_rate: float = 0.0
    learner_mode: bool = False
    redelivered_is_new: bool = False
    events: list[str] = field(default_factory=list)


class Observer:
    """Measures the figures repeatedly, and remembers enough to report what changed."""

    def __init__(self, running: RunningDemo) -> None:
        self._running = running
        self._queue: Queue = running.queue()
        #: The last count of every worker process that was seen. A killed process keeps its last count.
        self._repeats: dict[tuple[str, int | None], int] = {}
        self._repeats_at = float("-inf")
        self._frozen: dict[str, FrozenWorker] = {}
        self._unreported = 0
        self._before: Snapshot | None = None
        #: The last two counts of unacknowledged messages of each worker process. When a worker dies, its last count may
        #: be 0 or missing, so the larger of the two is shown.
        self._recent_unacked: dict[tuple[str, int | None], deque[int]] = {}
        self._redelivered_at = 0.0
        self._rates: deque[tuple[float, int | None, int | None]] = deque()
        self._events: deque[str] = deque(maxlen=EVENTS)

    def measure(self) -> Snapshot:
        """Measure the figures now. Raises SupervisorUnreachable when the demo has ended."""
        try:
            figures = self._queue.figures()
        except BrokerUnreachable:
            figures = None
        workers = self._running.workers()
        snapshot = Snapshot(
            figures=figures,
            workers=workers,
            accepted=view_counts.accepted(self._running.web_url),
            stored=self._running.stored(),
            outbox=_in_outboxes(self._running.state),
            came_again=self._came_again(workers),
            since=self._running.streaming_app_started_at(),
            frozen=self._frozen_workers(workers),
            learner_mode=self._running.learner_mode,
        )
        snapshot.unacked_by_worker = self._unacked_by_worker(snapshot)
        for worker in workers:
            if worker.name in snapshot.unacked_by_worker:
                lately = self._recent_unacked.setdefault((worker.name, worker.pid), deque(maxlen=2))
                lately.append(snapshot.unacked_by_worker[worker.name])
        self._rate(snapshot)
        if self._before is not None:
            self._compare(self._before, snapshot)
        snapshot.redelivered_is_new = monotonic() - self._redelivered_at < BRIGHT_S
        snapshot.events = list(self._events)
        self._before = snapshot
        return snapshot

    def new_events(self) -> list[str]:
        """Return what has happened since the last call."""
        new = list(self._events)[-self._unreported :] if self._unreported else []
        self._unreported = 0
        return new

    def _came_again(self, workers: list[Worker]) -> int:
        if monotonic() - self._repeats_at > REPEATS_INTERVAL_S:
            self._repeats_at = monotonic()
            for worker in workers:
                if worker.state == "running" and worker.metrics_url:
                    repeats = view_counts.known(worker.metrics_url)
                    if repeats is not None:
                        self._repeats[worker.name, worker.pid] = repeats
        return sum(self._repeats.values())

    def _frozen_workers(self, workers: list[Worker]) -> dict[str, FrozenWorker]:
        """Return what was recorded when workers were frozen: when the broker redelivers their messages. Records missing
        ones now.
        """
        now: dict[str, FrozenWorker] = {}
        for worker in workers:
            if worker.state != "frozen":
                continue
            recorded = self._frozen.get(worker.name) or frozen_workers(self._running.state).get(worker.name)
            if recorded is None or recorded.pid != worker.pid:
                recorded = record_frozen(self._running, worker)
            now[worker.name] = recorded
        self._frozen = now
        return now

    def _unacked_by_worker(self, snapshot: Snapshot) -> Mapping[str, int]:
        if not snapshot.learner_mode:
            return {worker.name: 0 for worker in snapshot.workers} | dict(
                snapshot.figures.unacked_by_worker if snapshot.figures else {}
            )
        # pgmq does not store who has read a message, so each worker is asked.
        unacked: dict[str, int] = {}
        for worker in snapshot.workers:
            if worker.name in snapshot.frozen:
                note = snapshot.frozen[worker.name]
                unacked[worker.name] = note.messages if note.left_s else 0
            elif report := reported_by(self._running, worker):
                unacked[worker.name] = report.messages
        return unacked

    def _rate(self, snapshot: Snapshot) -> None:
        now = monotonic()
        self._rates.append((now, snapshot.accepted, snapshot.stored))
        while now - self._rates[0][0] > RATE_WINDOW_S:
            self._rates.popleft()
        then, accepted, stored = self._rates[0]
        elapsed = max(now - then, 0.001)
        snapshot.accepted_rate = max(0, (snapshot.accepted or 0) - (accepted or 0)) / elapsed
        snapshot.stored_rate = max(0, (snapshot.stored or 0) - (stored or 0)) / elapsed

    def _compare(self, before: Snapshot, now: Snapshot) -> None:
        old_workers = {worker.name: worker for worker in before.workers}
        for worker in now.workers:
            old = old_workers.get(worker.name)
            if old is None:
                self._record_event(f"[green]{worker.name} was added[/]")
            elif worker.pid != old.pid and old.pid:
                unacked = max(self._recent_unacked.pop((old.name, old.pid), [0]))
                self._record_event(f"[red]{worker.name} is gone[/]{_unacked_before(unacked)}")
            elif worker.state != old.state:
                self._record_event(f"{worker.name}: {old.state} -> [{STATE_STYLE[worker.state]}]{worker.state}[/]")
        self._compare_figures(before.figures, now.figures)

    def _compare_figures(self, before: QueueFigures | None, now: QueueFigures | None) -> None:
        if before is None or now is None:
            if before is not now:
                self._record_event(
                    "[red]the broker does not answer[/]" if now is None else "[green]the broker is back[/]"
                )
            return
        if now.redelivered > before.redelivered:
            self._redelivered_at = monotonic()
            self._record_event(
                f"[bold yellow]{quantity(now.redelivered - before.redelivered, 'message')} delivered again[/]"
            )
        if now.dead > before.dead:
            self._record_event(f"[bold red]dead letters: {now.dead - before.dead} more[/]")

    def _record_event(self, what: str) -> None:
        self._unreported += 1
        self._events.append(f"[dim]{datetime.now():%H:%M:%S}[/]  {what}")  # noqa: DTZ005 (the reader's own clock)


def _in_outboxes(state: State) -> int | None:
    try:
        return waiting_in(state.outbox)
    except sqlite3.Error:
        return None


def _unacked_before(unacked: int) -> str:
    return f": it had {quantity(unacked, 'unacknowledged message')}" if unacked else ""


def render(snapshot: Snapshot, width: int = 80) -> RenderableType:
    """Draw the figures of one moment."""
    bar = max(4, min(WIDTH_OF_BAR, width - WIDTH_OF_FIGURES))
    parts: list[RenderableType] = [_queue(snapshot, bar), Text(), _workers(snapshot, bar)]
    parts += [Text(_countdown(snapshot, name, note), style="cyan") for name, note in snapshot.frozen.items()]
    parts += [Text(), _counts(snapshot)]
    if snapshot.events:
        parts += [Text(), *(Text.from_markup(event) for event in snapshot.events)]
    return Group(*parts)


def _countdown(snapshot: Snapshot, name: str, note: FrozenWorker) -> str:
    """Format the countdown until a frozen worker's messages go to another worker."""
    broker = (
        "PostgreSQL shows its messages to other workers" if snapshot.learner_mode else "RabbitMQ closes its connection"
    )
    if note.left_s:
        return f"{name}: {broker} in {note.left_s} s"
    if snapshot.unacked_by_worker.get(name):
        return f"{name}: {broker} at any moment"
    return f"{name}: other workers have its messages now"


def _queue(snapshot: Snapshot, bar: int) -> RenderableType:
    if snapshot.figures is None:
        return Text.from_markup("queue [bold]history[/]   [red]the broker does not answer[/]")
    figures = snapshot.figures
    table = Table("queue", "ready", "unacked", "redelivered", "dead", "", box=None, pad_edge=False)
    table.add_row(
        "[bold]history[/]",
        f"{figures.ready:,}",
        f"{figures.unacked:,}",
        Text(f"{figures.redelivered:,}", style="bold black on yellow" if snapshot.redelivered_is_new else ""),
        Text(f"{figures.dead:,}", style="bold red" if figures.dead else ""),
        f"[blue]{_bar(figures.ready, bar)}[/]",
    )
    return table


def _workers(snapshot: Snapshot, bar: int) -> RenderableType:
    table = Table("worker", "state", "process", "unacked", "", box=None, pad_edge=False)
    for worker in snapshot.workers:
        table.add_row(
            worker.name,
            Text(worker.state, style=STATE_STYLE[worker.state]),
            str(worker.pid or ""),
            _unacked_text(snapshot, worker),
            f"[magenta]{_bar(snapshot.unacked_by_worker.get(worker.name, 0), bar)}[/]",
        )
    return table


def _unacked_text(snapshot: Snapshot, worker: Worker) -> str:
    unacked = snapshot.unacked_by_worker.get(worker.name)
    return "?" if unacked is None else f"{unacked:,}"


def _counts(snapshot: Snapshot) -> RenderableType:
    since = f" since {datetime.fromtimestamp(snapshot.since):%H:%M:%S}" if snapshot.since else ""  # noqa: DTZ006 (as above)
    table = Table(f"views{since}", "", "a second", box=None, pad_edge=False)
    table.add_row("accepted", _number(snapshot.accepted), f"{snapshot.accepted_rate:,.0f}")
    table.add_row("in the outbox", Text(_number(snapshot.outbox), style="bold yellow" if snapshot.outbox else ""), "")
    table.add_row("stored", _number(snapshot.stored), f"{snapshot.stored_rate:,.0f}")
    table.add_row("came again, changed nothing", f"{snapshot.came_again:,}", "")
    return table


def _number(value: int | None) -> str:
    return "away" if value is None else f"{value:,}"


def _bar(length: int, most: int) -> str:
    return "█" * min(length, most) + ("…" if length > most else "")
