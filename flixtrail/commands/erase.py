"""`flixtrail erase`: take a viewer out of the history, for good."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import click

from flixtrail.commands.options import state_option
from flixtrail.local.errors import DemoError, WrongSetting


@click.command()
@click.argument("viewer")
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal to ask on.")
@click.option(
    "--margin",
    metavar="SECONDS",
    type=click.FloatRange(0, 86_400),
    default=0.0,
    help="By how much clocks of streaming hosts may run ahead of the database's. Views of theirs that are received "
    "within it are dropped, too.  [default: 0]",
)
@click.option(
    "--database-url", envvar="DATABASE_URL", help="A database other than the running demo's.  [env: DATABASE_URL]"
)
@state_option
def command(viewer: str, margin: float, database_url: str | None, state: Path, *, yes: bool) -> None:
    """Erase all that VIEWER has watched.

    What is still on its way (in the queue, in the outbox, a dead letter) is dropped when it arrives. What VIEWER
    watches from now on counts again. Erasing again is harmless.

    One exception: a client that only streams, with no page that reports, counts once a video and hour. A video whose
    view of this hour was erased counts again from the next hour on.
    """
    from sqlalchemy.exc import DBAPIError

    from history_worker.erasure import BadViewer, check, connect_patiently, erase

    try:
        check(viewer)
    except BadViewer as error:
        raise WrongSetting(f"VIEWER: {error}") from None
    engine = connect_patiently(address(database_url, state))
    if not yes:
        if not sys.stdin.isatty():
            raise WrongSetting("Nobody can be asked here: add --yes. What is erased cannot be brought back.")
        click.confirm(f"Erase all that {viewer} has watched? It cannot be brought back.", abort=True, err=True)
    try:
        erased = erase(engine, viewer, margin=timedelta(seconds=margin))
    except DBAPIError as error:
        reason = str(error.orig).splitlines()[0]
        raise DemoError(f"Could not erase {viewer}: {reason}. Run it again; erasing twice is harmless.") from None
    finally:
        engine.dispose()
    click.echo(
        f"erased {viewer}: {number(erased.events, 'view')} of {number(erased.playbacks, 'playback')}. "
        "Views of theirs that are still on their way are dropped when they arrive."
    )


def address(database_url: str | None, state: Path) -> str:
    """The history database that is named, or the running demo's. Raises WrongSetting, NotRunning."""
    from history_worker.settings import DatabaseSettings
    from view_events.settings import SettingsError, read

    if database_url is None:
        from flixtrail.local.running import Running  # in an image there is no demo, nor what it needs
        from flixtrail.local.state import State

        database_url = Running(State(state)).database_url
    try:
        return read(DatabaseSettings, {"DATABASE_URL": database_url}).database_url
    except SettingsError as error:
        raise WrongSetting(str(error)) from None


def number(count: int, what: str) -> str:
    """`1 view`, `1,200 views`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
