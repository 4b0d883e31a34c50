"""The output of a load test: a moving line while it runs, a table at its end, and a last line for scripts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from locust.runners import Runner
from locust.stats import RequestStats, StatsEntry, sort_stats
from rich.console import Console
from rich.live import Live
from rich.table import Table

from proof.load.tally import Tally, Verdict

#: Seconds between two lines if there is no terminal.
LINE_EVERY_S = 5.0
#: The rate is the mean over this many seconds, because only a few batches come per second.
RATE_S = 5.0
PERCENTILES = (0.50, 0.95, 0.99)


class Screen:
    """Shows a run: in place on a terminal, otherwise line by line."""

    def __init__(self, console: Console, tally: Tally, stats: RequestStats) -> None:
        self._console = console
        self._tally = tally
        self._stats = stats
        self._live: Live | None = None
        self._began = self._said = monotonic()
        self._accepted = deque([(self._began, 0)])  # (time, number of accepted events at that time)

    @contextmanager
    def live_line(self) -> Iterator[None]:
        """Inside the block, on a terminal, `show` replaces what it showed before."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as self._live:
            yield
        self._live = None

    def show(self, doing: str, users: int) -> None:
        """Show the current figures. `doing` is a word."""
        now = monotonic()
        line = (
            f"{doing:<8}{now - self._began:4.0f} s · {users} users · accepted {self._tally.accepted:,} "
            f"({self._rate(now):,.0f}/s) · stored {self._tally.seen:,} · failures {self._stats.num_failures:,}"
        )
        if self._live:
            self._live.update(line, refresh=True)
        elif now - self._said >= LINE_EVERY_S:
            self._said = now
            self._console.print(line, highlight=False, soft_wrap=True)

    def _rate(self, now: float) -> float:
        self._accepted.append((now, self._tally.accepted))
        while now - self._accepted[0][0] > RATE_S:
            self._accepted.popleft()
        since, before = self._accepted[0]
        return (self._tally.accepted - before) / max(now - since, 1.0)


def print_result(console: Console, verdict: Verdict, runner: Runner) -> None:
    """Print the table, the failed requests, and what is wrong."""
    console.print(_table(verdict, runner.stats))
    for error in runner.stats.errors.values():
        console.print(f"failed {error.occurrences:,} times: {error.method} {error.name}: {error.error}", markup=False)
    for exception in runner.exceptions.values():
        console.print(f"a user failed {exception['count']:,} times: {exception['msg']}", markup=False)
    for fault in verdict.faults:
        console.print(fault, style="bold red")


def _table(verdict: Verdict, stats: RequestStats) -> Table:
    """Make a table: every kind of request with its latencies, then what happened to the views."""
    table = Table(title="Load test")
    table.add_column("")
    for heading in ("count", "failures", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for entry in sort_stats(stats.entries):
        latencies = [f"{entry.get_response_time_percentile(part):,.0f}" for part in PERCENTILES]
        table.add_row(f"{entry.method} {entry.name}", f"{entry.num_requests:,}", f"{entry.num_failures:,}", *latencies)
    table.add_section()
    for name, count in {
        "views accepted": verdict.accepted,
        "views stored": verdict.stored,
        "views lost": verdict.lost,
        "views counted twice": verdict.duplicated,
        "views stored, not counted": verdict.uncounted,
        "views in doubt (sent, no 202)": verdict.in_doubt,
        "... of which stored": verdict.in_doubt_stored,
    }.items():
        table.add_row(name, f"{count:,}")
    return table


def last_line(verdict: Verdict, stats: RequestStats) -> str:
    """Return the last line, for scripts. Its latencies are those of `POST /api/views`, including batches."""
    posts = StatsEntry(stats, "every POST", "POST")
    for entry in stats.entries.values():
        if entry.method == "POST":
            posts.extend(entry)
    p50, p95, p99 = (round(posts.get_response_time_percentile(part)) for part in PERCENTILES)
    return (
        f"load: accepted={verdict.accepted} stored={verdict.stored} lost={verdict.lost} "
        f"duplicated={verdict.duplicated} p50={p50}ms p95={p95}ms p99={p99}ms"
    )
