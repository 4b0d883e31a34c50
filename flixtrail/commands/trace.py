"""`flixtrail trace`: shows what happened to one view, from the logs and the database."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from flixtrail.commands.erase import history_database_url
from local.errors import NotRunning
from local.printable import quantity, visible
from local.state_option import state_option

if TYPE_CHECKING:
    from local.log_lines import Log
    from local.view_trace import Step, ViewTrace

WIDTH_IN_A_PIPE = 200
#: For a view that is not stored: the next step for the reader.
NEXT_STEP = "look into `flixtrail dead list`"
#: Characters of a log line that are shown. Anybody may have written the line, so it may be very long.
MAX_CHARACTERS = 2_000


@click.command()
@click.argument("event_id", metavar="EVENT_ID", type=click.UUID)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option(
    "--logs",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, readable=True, allow_dash=True),
    help="Read these logs instead of the demo's. `-`: standard input.",
)
@click.option(
    "--database-url", envvar="DATABASE_URL", help="The database that belongs to these logs.  [env: DATABASE_URL]"
)
@state_option
def command(event_id: UUID, logs: str | None, database_url: str | None, state: Path, *, as_json: bool) -> None:
    """Show what happened to the view EVENT_ID: when it was recorded, published, committed or refused, and by which
    service. Use it if a view seems to be missing.

    Exit status 1: nothing is known about the view.

    \b
    flixtrail trace EVENT_ID
    docker compose logs --no-color | flixtrail trace EVENT_ID --logs -
    """  # noqa: D301 (click's \b)
    from local.view_trace import trace_view

    with open_logs(logs, state) as found:
        trace = trace_view(str(event_id), found)
    row, why_not = ask_database(event_id, database_url, state if logs is None else None)
    if row and row["stored"]:
        trace.steps.insert(0, recorded_step(row["stored"]))
        trace.steps.sort(key=lambda step: step.time)
    ending = conclusion(trace, row, why_not)
    if as_json:
        click.echo(json.dumps(document(trace, row, ending), indent=2, default=plain))
    else:
        show(trace, ending)
    if not is_known(trace, row):
        sys.exit(1)


@contextmanager
def open_logs(logs: str | None, state: Path) -> Iterator[Sequence[Log]]:
    """Yield the log files. Raises NotRunning if there are none."""
    from local.log_lines import Log, logs_in
    from local.state import State

    if logs == "-":
        # Standard input is copied to a file, because it is read more than once.
        with tempfile.NamedTemporaryFile(prefix="flixtrail-trace-") as kept:
            shutil.copyfileobj(sys.stdin.buffer, kept)
            kept.flush()
            yield [Log(Path(kept.name))]
    elif logs:
        yield [Log(Path(logs))]
    else:
        folder = State(state)
        if not folder.logs.is_dir():
            folder.read()
        yield logs_in(folder.logs)


def ask_database(event_id: UUID, url: str | None, state: Path | None) -> tuple[dict[str, Any] | None, str]:
    """Ask the database about the view. Returns its row, or None and the reason why it was not asked. `state`: the demo
    whose database may be asked.
    """
    from sqlalchemy.exc import DBAPIError

    from history_worker.store.queries import view
    from service.database import connect

    if url is None and state is None:
        return None, "no database was named (--database-url)"
    try:
        engine = connect(history_database_url(url, state or Path()), pool_size=1)
    except NotRunning:
        return None, "the demo is not running"
    try:
        return view(engine, event_id), ""
    except DBAPIError as error:
        return None, f"the database does not answer: {str(error.orig).splitlines()[0]}"
    finally:
        engine.dispose()


def recorded_step(stored: dict[str, Any]) -> Step:
    """Make the step "recorded" from the view's row."""
    from local.view_trace import Step

    details = f"{stored['kind']} of {stored['video_id']} at {stored['position_s']:g} s by {stored['viewer_id']}"
    return Step(stored["received_at"], "database", "recorded", details)


def is_known(trace: ViewTrace, row: dict[str, Any] | None) -> bool:
    return bool(trace.steps) or bool(row and row["erased"])


def conclusion(trace: ViewTrace, row: dict[str, Any] | None, why_not: str) -> str:
    """Describe how it ended, and what is missing."""
    if row is None:
        seen = trace.steps[-1] if trace.steps else None
        said = f"last seen {seen.what} at {clock(seen.time)}" if seen else "nothing is known of it"
        return f"{said}; from the logs only: {why_not}"
    if row["stored"]:
        return f"stored; {playback_text(row['playback'])}"
    if row["erased"]:
        return "not stored: its viewer was erased"
    return not_stored_text(trace) if trace.steps else "nothing is known of it: not stored, and in none of the logs"


def not_stored_text(trace: ViewTrace) -> str:
    """Describe how far the view came."""
    refused = trace.last("refused, dead-lettered", "given up, dead-lettered")
    committed = trace.last("committed", "redelivered, committed")
    if refused and not (committed and committed.time > refused.time and committed.task_id != refused.task_id):
        return f"not stored: refused ({refused.details}); {NEXT_STEP}"
    if committed:
        return "not stored, though a worker committed its batch: its viewer was erased, perhaps"
    sent = trace.last("published", "sent from the outbox")
    if sent:
        return f"not stored; last seen {sent.what} at {clock(sent.time)} in task {sent.task_id}; {NEXT_STEP}"
    last = trace.steps[-1]
    return f"not stored; last seen {last.what} at {clock(last.time)}: it is sent when the broker is back"


def playback_text(playback: dict[str, Any] | None) -> str:
    if playback is None:
        return "its playback is missing"
    finished = ", finished" if playback["finished"] else ""
    events = quantity(playback["events"], "event")
    return f"playback {playback['playback_id']}: {events}, at {playback['position_s']:g} s{finished}"


def document(trace: ViewTrace, row: dict[str, Any] | None, ending: str) -> dict[str, Any]:
    """Return the trace for programs. `stored` is null if it is not stored, and absent if no database was asked."""
    return {
        "event_id": trace.event_id,
        "trace_ids": trace.trace_ids,
        "task_ids": [*trace.task_ids, *trace.maybe_task_ids],
        "story": [asdict(step) for step in trace.steps],
        **(row or {}),
        "conclusion": ending,
    }


def plain(value: object) -> str:
    """Convert times to RFC 3339."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def show(trace: ViewTrace, ending: str) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for column in ("time", "service", "what"):
        table.add_column(column, no_wrap=True)
    table.add_column("details", overflow="fold")
    for step in trace.steps:
        bad = "dead-lettered" in step.what
        what = Text(visible(step.what), style="bold red" if bad else "bold")
        # A log line has as many ids as its message has views, so it may be very long. It is cut.
        table.add_row(
            Text(clock(step.time)), Text(visible(step.service)), what, Text(visible(step.details, MAX_CHARACTERS))
        )
    click.echo(f"view {trace.event_id}" + "".join(f", trace {visible(trace_id)}" for trace_id in trace.trace_ids))
    console = Console(highlight=False)
    if table.rows:
        console.print(table) if console.is_terminal else Console(width=WIDTH_IN_A_PIPE, highlight=False).print(table)
    click.echo(visible(ending, MAX_CHARACTERS))


def clock(time: datetime) -> str:
    """Format a time in UTC, as in the logs."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
