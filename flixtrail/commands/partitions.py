"""`flixtrail partitions`: shows, makes and detaches the monthly partitions of the history."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from flixtrail.commands.erase import history_database_url
from flixtrail.commands.options import Group, confirm
from local.errors import DemoError
from local.printable import quantity
from local.state_option import state_option

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from history_worker.store.partitions import Partition

WIDTH_IN_A_PIPE = 120
MOST_MONTHS_AHEAD = 120
STATES = {
    "default": ("[dim]", "for events without a partition"),
    "ahead": ("[dim]", "ahead"),
    "current": ("[green]", "current"),
    "kept": ("", "kept"),
    "past": ("[yellow]", "past retention"),
    "detached": ("[yellow]", "detached"),
}


@dataclass(frozen=True, slots=True)
class Database:
    """The history database to work on."""

    url: str | None
    state: Path

    @contextmanager
    def open(self) -> Iterator[tuple[Engine, datetime]]:
        """Yield an engine for the database, and the current time. Raises DemoError."""
        from psycopg.errors import InsufficientPrivilege
        from sqlalchemy.exc import DBAPIError

        from history_worker.store.partitions import clock, connect_as_owner

        engine = connect_as_owner(history_database_url(self.url, self.state))
        try:
            yield engine, clock(engine)
        except DBAPIError as error:
            reason = str(error.orig).splitlines()[0]
            if isinstance(error.orig, InsufficientPrivilege):
                raise DemoError(f"{reason}. It needs the role that owns the tables: --help shows how.") from None
            raise DemoError(f"{reason}. What was done until then stays; run it again for the rest.") from None
        finally:
            engine.dispose()


@click.group(cls=Group, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.option(
    "--database-url", envvar="DATABASE_URL", help="A database other than the running demo's.  [env: DATABASE_URL]"
)
@state_option
@click.pass_context
def command(context: click.Context, database_url: str | None, state: Path, *, as_json: bool) -> None:
    """Show the partitions of view_events. There is one for each month, by the time in the event's id.

    \b
    Each start makes the partitions of the next months, and so does `make`.
    Partitions that are past retention stay until you run `detach`.
    `make` and `detach` need the role that owns the tables. With Docker:
      docker compose run --rm --no-deps migrate python -m flixtrail partitions make
    """  # noqa: D301 (click's \b)
    context.obj = Database(database_url, state)
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError("--json is for the table: without a command.")
        return
    from history_worker.store.partitions import listed

    with context.obj.open() as (engine, now), engine.connect() as connection:
        partitions = listed(connection)
    if as_json:
        click.echo(json.dumps([summary(one, now) for one in partitions], indent=2))
    else:
        show(partitions, now)


@command.command()
@click.option(
    "--months",
    type=click.IntRange(1, MOST_MONTHS_AHEAD),
    help="How many months ahead.  [default: 12]",
)
@click.pass_obj
def make(database: Database, months: int | None) -> None:
    """Make the missing partitions of this month and the next ones. Running it again changes nothing.

    If views came while their month had no partition, they are in the default partition. They are moved.
    """
    from history_worker.store.partitions import make as make_missing
    from history_worker.store.retention import MONTHS_AHEAD

    with database.open() as (engine, now):
        made = make_missing(engine, now, months or MONTHS_AHEAD)
    for name, moved in made.items():
        click.echo(f"made {name}" + (f", and moved {quantity(moved, 'view')} into it" if moved else ""))
    if not made:
        click.echo("nothing is missing")


@command.command()
@click.option(
    "--drop", is_flag=True, help="Also drop them, and those that were detached before. Nothing brings them back."
)
@click.option("--yes", is_flag=True, help="Do not ask. You need this if there is no terminal.")
@click.pass_obj
def detach(database: Database, *, drop: bool, yes: bool) -> None:
    """Detach the partitions that are past retention.

    Their views are no longer part of the history, and playbacks without any kept view are deleted. Workers refuse ids
    that old, so nothing counts again. A detached partition is a table of its own: dump it, then delete it with --drop.
    `flixtrail erase` does not change it.
    """
    from history_worker.store.partitions import detach as detach_past
    from history_worker.store.partitions import past, prune

    with database.open() as (engine, now):
        found = [one for one in past(engine, now) if one.attached or drop]
        if found and not yes:
            names = ", ".join(one.name for one in found)
            confirm(f"{'Drop' if drop else 'Detach'} {names}?")
        detached = detach_past(engine, now, drop=drop)
        # Run even if nothing was detached, because the last run may have been interrupted.
        pruned = prune(engine, now)
    for name in detached:
        click.echo(f"{'dropped' if drop else 'detached'} {name}")
    if not detached:
        click.echo("nothing is past retention")
    if pruned.playbacks or pruned.erased_ids:
        click.echo(
            f"deleted {quantity(pruned.playbacks, 'playback')}, forgot {quantity(pruned.erased_ids, 'erased id')}"
        )


def summary(partition: Partition, now: datetime) -> dict[str, Any]:
    return {
        "name": partition.name,
        "from": format_time(partition.ids.begin),
        "to": format_time(partition.ids.end),
        "rows_estimate": partition.rows,
        "bytes": partition.bytes,
        "state": partition.state(now),
    }


def show(partitions: Sequence[Partition], now: datetime) -> None:
    """Print the partitions as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "from", "to", box=None, pad_edge=False)
    table.add_column("rows, about", justify="right")
    table.add_column("size", justify="right")
    table.add_column("state")
    for one in partitions:
        colour, state = STATES[one.state(now)]
        begin, end = format_time(one.ids.begin), format_time(one.ids.end)
        rows = "" if one.rows is None else f"{one.rows:,}"
        table.add_row(one.name, (begin or "")[:10], (end or "")[:10], rows, format_size(one.bytes), f"{colour}{state}")
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_IN_A_PIPE).print(table)


def format_time(bound: UUID | None) -> str | None:
    from view_events.event import event_id_time

    at = event_id_time(bound) if bound else None
    return at.isoformat() if at else None


def format_size(count: int) -> str:
    """Format a size: `1,234 kB`."""
    return f"{count / 1000:,.0f} kB"
