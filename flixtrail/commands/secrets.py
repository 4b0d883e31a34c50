"""`flixtrail secrets`: random secrets for docker compose, into `.env`."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from pathlib import Path

import click

from flixtrail.local.errors import WrongSetting

#: In docker-compose.yml: a variable that has a development default.
SECRET = re.compile(r"\$\{([A-Z_]+):-change-me-[a-z-]+\}")
#: A line of .env that sets one; an empty value counts as none, as docker compose takes it.
LINE = re.compile(r"^\s*(?:export\s+)?([A-Z_]+)=(.+)$", re.MULTILINE)
#: 192 bits: hexadecimal digits stand in URLs and files as they are.
SECRET_BYTES = 24


@click.command()
@click.option(
    "--file",
    "env_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=".env",
    show_default=True,
    help="Where they go. What is set there already stays as it is.",
)
@click.option(
    "--compose-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default="docker-compose.yml",
    show_default=True,
    help="Tells which there are.",
)
def command(env_file: Path, compose_file: Path) -> None:
    """Make the secrets of docker-compose.yml that are not set yet, each a random one.

    Without them every service has a development default that anybody can read. It is good for 127.0.0.1 alone, and
    refused with BIND=0.0.0.0.

    \b
    flixtrail secrets
    docker compose up -d             takes them over, also where the stack ran before with others
    """  # noqa: D301 (click's \b)
    try:
        wanted = list(dict.fromkeys(SECRET.findall(compose_file.read_text())))
    except OSError as error:
        raise WrongSetting(f"--compose-file: cannot read {compose_file}: {error.strerror}") from None
    try:
        known = env_file.read_text() if env_file.exists() else ""
        have = {name for name, _ in LINE.findall(known)}
        missing = [name for name in wanted if name not in have]
        if missing:
            add(env_file, known, missing)
    except OSError as error:
        raise WrongSetting(f"--file: cannot write {env_file}: {error.strerror}") from None
    kept = f"; {len(wanted) - len(missing)} were there and stay" if len(missing) < len(wanted) else ""
    click.echo(f"{env_file}: made {len(missing)} of {len(wanted)} secrets{kept}")
    if missing:
        click.echo("Take them over: docker compose up -d. Keep the file: whoever has it may do everything.")


def add(env_file: Path, known: str, names: list[str]) -> None:
    """Write the file anew, readable by its owner only, with one more line a name. It is there whole or as before."""
    separator = "" if not known or known.endswith("\n") else "\n"
    lines = "".join(f"{name}={secrets.token_hex(SECRET_BYTES)}\n" for name in names)
    handle, name = tempfile.mkstemp(dir=env_file.resolve().parent, prefix=".env.")  # mkstemp: mode 0600
    with os.fdopen(handle, "w") as file:
        file.write(f"{known}{separator}{lines}")
    Path(name).replace(env_file)
