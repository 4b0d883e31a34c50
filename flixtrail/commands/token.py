"""`flixtrail token`: bearer tokens for curl and scripts."""

from __future__ import annotations

from pathlib import Path

import click

from flixtrail.commands.options import state_option
from flixtrail.local.errors import WrongSetting


@click.command()
@click.option("--viewer", metavar="NAME", help="A token that records and reads for this viewer.")
@click.option("--ingest", is_flag=True, help="A token that records for any viewer (`viewer_id`), and reads for none.")
@click.option("--secret-key", envvar="SECRET_KEY", help="The app's key, where it is not the demo's.  [env: SECRET_KEY]")
@state_option
def command(viewer: str | None, secret_key: str | None, state: Path, *, ingest: bool) -> None:
    """Make a bearer token, signed with the running demo's key.

    \b
    curl -H "Authorization: Bearer $(flixtrail token --viewer alice)" http://127.0.0.1:8000/api/history
    \b
    For docker compose:  SECRET_KEY=change-me-secret-key flixtrail token --viewer alice
    """  # noqa: D301 (click's \b)
    if (viewer is None) == (not ingest):
        raise click.UsageError("Give either --viewer NAME or --ingest.")
    from flixtrail.local.state import State
    from streaming_app.auth import Tokens

    tokens = Tokens(secret_key or State(state).read()["secret_key"])
    try:
        click.echo(tokens.ingest() if viewer is None else tokens.viewer(viewer))
    except ValueError as error:
        raise WrongSetting(f"--viewer: {error}") from None
