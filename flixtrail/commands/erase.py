"""`flixtrail erase`: deletes a viewer's history for good."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import click

from flixtrail.commands.options import Number, confirm
from local.errors import DemoError, WrongSetting
from local.printable import quantity, visible
from local.state_option import state_option


@click.command()
@click.argument("viewer")
@click.option("--yes", is_flag=True, help="Do not ask. You need this if there is no terminal.")
@click.option(
    "--margin",
    metavar="SECONDS",
    type=Number(0, 86_400),
    default=0.0,
    help="How far the clock of a streaming host may run ahead of the database's. Views that such a host receives "
    "within this time are dropped, too.  [default: 0]",
)
@click.option(
    "--database-url", envvar="DATABASE_URL", help="A database other than the running demo's.  [env: DATABASE_URL]"
)
@state_option
def command(viewer: str, margin: float, database_url: str | None, state: Path, *, yes: bool) -> None:
    """Erase all that VIEWER has watched. It cannot be brought back.

    Views that are still in the queue, in the outbox or a dead letter are dropped when they arrive. What VIEWER watches
    from now on counts. Erasing again does no harm.

    There is one exception: a client that only streams, with no page that reports, counts once for each video and hour.
    A video whose view of this hour was erased counts again from the next hour on.

    \b
    flixtrail erase alice
    """  # noqa: D301 (click's \b)
    from sqlalchemy.exc import DBAPIError

    from history_worker.store.erasure import BadViewer, check, connect_patiently, erase

    try:
        check(viewer)
    except BadViewer as error:
        raise WrongSetting(f"VIEWER: {error}") from None
    engine = connect_patiently(history_database_url(database_url, state))
    if not yes:
        confirm(
            f"Erase all that {visible(viewer)} has watched? It cannot be brought back.",
            "What is erased cannot be brought back.",
        )
    try:
        erased = erase(engine, viewer, margin=timedelta(seconds=margin))
    except DBAPIError as error:
        reason = str(error.orig).splitlines()[0]
        raise DemoError(
            f"Could not erase {visible(viewer)}: {reason}. Run it again; erasing twice is harmless."
        ) from None
    finally:
        engine.dispose()
    click.echo(
        f"erased {visible(viewer)}: {quantity(erased.events, 'view')} of {quantity(erased.playbacks, 'playback')}. "
        "Views of theirs that are still on their way are dropped when they arrive."
    )


def history_database_url(database_url: str | None, state: Path) -> str:
    """Return the address of the named history database, or of the running demo's. Raises WrongSetting, NotRunning."""
    from history_worker.settings import DatabaseSettings
    from service.settings import SettingsError, read

    password = os.environ.get("DATABASE_PASSWORD", "")
    if database_url is None:
        password = ""
        from local.running_demo import RunningDemo  # the image has neither a demo nor the packages for it
        from local.state import State

        database_url = RunningDemo(State(state)).database_url
    try:
        return read(DatabaseSettings, {"DATABASE_URL": database_url, "DATABASE_PASSWORD": password}).database_url
    except SettingsError as error:
        raise WrongSetting(str(error)) from None
