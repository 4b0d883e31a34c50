"""`flixtrail token`: makes and revokes bearer tokens, for curl and scripts."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from local.errors import WrongSetting
from local.state_option import state_option

if TYPE_CHECKING:
    from local.state import State

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
#: The longest validity, and the default without --expires.
MAX_DURATION = timedelta(days=400)


class Duration(click.ParamType[timedelta]):
    """A duration: `90s`, `15m`, `1h`, `30d`."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        match = re.fullmatch(r"([0-9]{1,9})([smhd])", str(value))
        duration = timedelta(**{UNITS[match[2]]: int(match[1])}) if match else timedelta()
        if not timedelta() < duration <= MAX_DURATION:
            self.fail(f"{value!r} is no time: expected a number and s, m, h or d, at most 400d, such as 1h", param, ctx)
        return duration


@click.command()
@click.option("--viewer", metavar="NAME", help="A token that records and reads for this viewer.")
@click.option("--ingest", is_flag=True, help="A token that records for any viewer (`viewer_id`), and reads for none.")
@click.option("--expires", "expires_in", type=Duration(), metavar="TIME", help="90s, 15m, 1h, 30d.  [default: 400d]")
@click.option("--revoke", metavar="TOKEN|ID", help="Revoke this token.")
@click.option(
    "--secret-key", envvar="SECRET_KEY", help="The streaming app's key, if it is not the demo's.  [env: SECRET_KEY]"
)
@state_option
def command(
    viewer: str | None,
    expires_in: timedelta | None,
    revoke: str | None,
    secret_key: str | None,
    state: Path,
    *,
    ingest: bool,
) -> None:
    """Make a bearer token, signed with the running demo's key, or revoke one.

    With --viewer, the token records and reads for this viewer. With --ingest, it records for any viewer and reads for
    none. Without --expires, a token is valid for 400 days.

    \b
    curl -H "Authorization: Bearer $(flixtrail token --viewer alice)" http://127.0.0.1:8000/api/history
    flixtrail token --viewer alice --expires 1h
    flixtrail token --revoke 3f2a9c0d1b5e
    \b
    For docker compose:  SECRET_KEY=change-me-secret-key flixtrail token --viewer alice
    """  # noqa: D301 (click's \b)
    if (viewer is not None) + ingest + (revoke is not None) != 1:
        raise click.UsageError("Give one of --viewer NAME, --ingest and --revoke TOKEN.")
    from local.state import State
    from streaming_app.access.auth import Tokens

    demo = State(state)
    if revoke is not None:
        _revoke(revoke, demo, secret_key)
        return
    tokens = Tokens(secret_key or demo.read()["secret_key"])
    try:
        made = tokens.ingest(expires_in) if viewer is None else tokens.viewer(viewer, expires_in)
    except ValueError as error:
        raise WrongSetting(f"--viewer: {error}") from None
    click.echo(made)
    if sys.stdout.isatty():
        click.echo(f"To revoke it: flixtrail token --revoke {tokens.token_id(made)}", err=True)


def _revoke(token: str, demo: State, secret_key: str | None) -> None:
    from streaming_app.access.auth import AuthError, Tokens
    from streaming_app.access.revocation import ID

    try:
        is_id = ID.fullmatch(token)
        token_id = token if is_id else Tokens(secret_key or demo.read()["secret_key"]).token_id(token)
    except AuthError as error:
        raise WrongSetting(f"--revoke: {error}") from None
    if secret_key:
        click.echo(f"Add {token_id} to REVOKED_TOKENS of the streaming app (in .env: then `docker compose up -d`).")
        return
    demo.read()  # raises NotRunning if no demo runs
    demo.revoke(token_id)
    click.echo(f"Revoked: {token_id}. The demo refuses it within a second.")
