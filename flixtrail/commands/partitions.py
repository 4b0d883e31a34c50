"""`flixtrail partitions`: the months of the history, those to come and those that are past."""

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

from flixtrail.commands.erase import address, number
from flixtrail.commands.options import state_option
from flixtrail.local.errors import DemoError, WrongSetting

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from history_worker.partitions import Partition

WIDTH_IN_A_PIPE = 120
MOST_MONTHS_AHEAD = 120
STATES = {
    "default": ("[dim]", "takes what has no partition"),
    "ahead": ("[dim]", "ahead"),
    "current": ("[green]", "current"),
    "kept": ("", "kept"),
    "past": ("[yellow]", "past retention"),
    "detached": ("[yellow]", "detached"),
}


@dataclass(frozen=True, slots=True)
class Database:
    """The history that is meant."""

    url: str | None
    state: Path

    @contextmanager
    def open(self) -> Iterator[tuple[Engine, datetime]]:
        """An engine on it, and the time. Raises DemoError."""
        from psycopg.errors import InsufficientPrivilege
        from sqlalchemy.exc import DBAPIError

        from history_worker.partitions import clock, connect_as_owner

        engine = connect_as_owner(address(self.url, self.state))
        try:
            yield engine, clock(engine)
        except DBAPIError as error:
            reason = str(error.orig).splitlines()[0]
            if isinstance(error.orig, InsufficientPrivilege):
                raise DemoError(f"{reason}. It needs the role that owns the tables: --help shows how.") from None
            raise DemoError(f"{reason}. What was done until then stays; run it again for the rest.") from None
        finally:
            engine.dispose()


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--database-url", envvar="DATABASE_URL", help="A database other than the running demo's.  [env: DATABASE_URL]"
)
@state_option
@click.pass_context
def command(context: click.Context, database_url: str | None, state: Path, *, as_json: bool) -> None:
    """Show the partitions of view_events: a month each, by the time in the event's id.

    \b
    Those of the next months are made at every start, and by `make`.
    Those that are past retention stay until `detach` is run.
    To make or detach needs the role that owns the tables. With Docker:
      docker compose run --rm --no-deps migrate python -m flixtrail partitions make
    """  # noqa: D301 (click's \b)
    context.obj = Database(database_url, state)
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError("--json is for the table: without a command.")
        return
    from history_worker.partitions import listed

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
    """Make the partitions of this month and the next ones, where they are missing. Again it changes nothing.

    Views that came while a month had no partition lie in the default one, and are moved.
    """
    from history_worker.partitions import make as make_missing
    from history_worker.retention import MONTHS_AHEAD

    with database.open() as (engine, now):
        made = make_missing(engine, now, months or MONTHS_AHEAD)
    for name, moved in made.items():
        click.echo(f"made {name}" + (f", and moved {number(moved, 'view')} into it" if moved else ""))
    if not made:
        click.echo("nothing is missing")


@command.command()
@click.option("--drop", is_flag=True, help="Drop them, and those that were detached before. Nothing brings them back.")
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal to ask on.")
@click.pass_obj
def detach(database: Database, *, drop: bool, yes: bool) -> None:
    """Detach the partitions that are past retention.

    Their views are then no part of the history any more, and the playbacks of which no view is kept go. Workers refuse
    ids that old, so that nothing is counted anew. Detached, they are tables of their own: dump them, then --drop.
    `flixtrail erase` does not look into them.
    """
    from history_worker.partitions import detach as detach_past
    from history_worker.partitions import past, prune

    with database.open() as (engine, now):
        found = [one for one in past(engine, now) if one.attached or drop]
        if found and not yes:
            ask(found, drop=drop)
        detached = detach_past(engine, now, drop=drop)
        # Also when there was nothing: the last time may have ended half-way.
        pruned = prune(engine, now)
    for name in detached:
        click.echo(f"{'dropped' if drop else 'detached'} {name}")
    if not detached:
        click.echo("nothing is past retention")
    if pruned.playbacks or pruned.erased_ids:
        click.echo(f"deleted {number(pruned.playbacks, 'playback')}, forgot {number(pruned.erased_ids, 'erased id')}")


def ask(partitions: Sequence[Partition], *, drop: bool) -> None:
    """Raises WrongSetting where nobody is there to be asked."""
    if not sys.stdin.isatty():
        raise WrongSetting("Nobody can be asked here: add --yes.")
    names = ", ".join(one.name for one in partitions)
    click.confirm(f"{'Drop' if drop else 'Detach'} {names}?", abort=True, err=True)


def summary(partition: Partition, now: datetime) -> dict[str, Any]:
    return {
        "name": partition.name,
        "from": moment(partition.ids.begin),
        "to": moment(partition.ids.end),
        "rows_estimate": partition.rows,
        "bytes": partition.bytes,
        "state": partition.state(now),
    }


def show(partitions: Sequence[Partition], now: datetime) -> None:
    """As a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "from", "to", box=None, pad_edge=False)
    table.add_column("rows, about", justify="right")
    table.add_column("size", justify="right")
    table.add_column("state")
    for one in partitions:
        colour, state = STATES[one.state(now)]
        begin, end = moment(one.ids.begin), moment(one.ids.end)
        rows = "" if one.rows is None else f"{one.rows:,}"
        table.add_row(one.name, (begin or "")[:10], (end or "")[:10], rows, size(one.bytes), f"{colour}{state}")
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_IN_A_PIPE).print(table)


def moment(bound: UUID | None) -> str | None:
    from view_events.event import event_id_time

    at = event_id_time(bound) if bound else None
    return at.isoformat() if at else None


def size(count: int) -> str:
    """`1,234 kB`."""
    return f"{count / 1000:,.0f} kB"
