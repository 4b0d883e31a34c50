"""`flixtrail secrets`: writes random secrets for docker compose to `.env`."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import click

from local.errors import WrongSetting
from service.atomic_file import write_whole

#: A variable in docker-compose.yml that has a development default.
SECRET = re.compile(r"\$\{([A-Z_]+):-change-me-[a-z-]+\}")
#: A line of .env that sets a variable. An empty value counts as not set, as in docker compose.
LINE = re.compile(r"^\s*(?:export\s+)?([A-Z_]+)=(.+)$", re.MULTILINE)
#: 192 bits, as hexadecimal digits: these need no quoting in URLs and files.
SECRET_BYTES = 24


@click.command()
@click.option(
    "--file",
    "env_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=".env",
    show_default=True,
    help="The file to write. Variables that it sets already stay as they are.",
)
@click.option(
    "--compose-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default="docker-compose.yml",
    show_default=True,
    help="The file that names the secrets.",
)
def command(env_file: Path, compose_file: Path) -> None:
    """Make a random secret for each secret of docker-compose.yml that is not set yet, and write it to `.env`.

    Without it, every service uses a development default that anybody can read. These defaults are fine for 127.0.0.1
    only; with BIND=0.0.0.0 the services refuse them.

    \b
    flixtrail secrets
    docker compose up -d             uses the new secrets, even if the stack ran with others before
    """  # noqa: D301 (click's \b)
    try:
        wanted = list(dict.fromkeys(SECRET.findall(compose_file.read_text())))
    except OSError as error:
        raise WrongSetting(f"--compose-file: cannot read {compose_file}: {error.strerror}") from None
    try:
        known = env_file.read_text("utf-8", "surrogateescape") if env_file.exists() else ""
        have = {name for name, _ in LINE.findall(known)}
        missing = [name for name in wanted if name not in have]
        if missing:
            add(env_file, known, missing)
    except OSError as error:
        raise WrongSetting(f"--file: cannot write {env_file}: {error.strerror}") from None
    kept = f"; {len(wanted) - len(missing)} were set already" if len(missing) < len(wanted) else ""
    click.echo(f"{env_file}: made {len(missing)} of {len(wanted)} secrets{kept}")
    if missing:
        click.echo(
            "To use them, run: docker compose up -d. Protect the file: everybody who can read it has full access."
        )


def add(env_file: Path, known: str, names: list[str]) -> None:
    """Rewrite the file with one more line per name, readable by its owner only. If that fails, the file
    is unchanged.
    """
    separator = "" if not known or known.endswith("\n") else "\n"
    lines = "".join(f"{name}={secrets.token_hex(SECRET_BYTES)}\n" for name in names)
    write_whole(env_file, f"{known}{separator}{lines}".encode("utf-8", "surrogateescape"), make_folder=False)
