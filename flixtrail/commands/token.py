"""`flixtrail token`: bearer tokens for curl and scripts."""

from __future__ import annotations

from pathlib import Path

import click

from flixtrail.commands.options import state_option


@click.command()
@click.option("--viewer", metavar="NAME", help="A token that records and reads for this viewer.")
@click.option("--ingest", is_flag=True, help="A token that records for any viewer (`viewer_id`), and reads for none.")
@state_option
def command(viewer: str | None, state: Path, *, ingest: bool) -> None:
    """Make a bearer token, signed with the running demo's key.

    \b
    curl -H "Authorization: Bearer $(flixtrail token --viewer alice)" http://127.0.0.1:8000/api/history
    """  # noqa: D301 (click's \b)
    if (viewer is None) == (not ingest):
        raise click.UsageError("Give either --viewer NAME or --ingest.")
    from flixtrail.local.state import State
    from streaming_app.auth import Tokens

    tokens = Tokens(State(state).read()["secret_key"])
    click.echo(tokens.ingest() if viewer is None else tokens.viewer(viewer))
