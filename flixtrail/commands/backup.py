"""`flixtrail backup`: the history and the broker's definitions of the compose stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import click

from flixtrail.compose import Compose, ended_in_order
from flixtrail.local.errors import DemoError, WrongSetting

HISTORY, DEFINITIONS, ABOUT = "history.dump", "definitions.json", "backup.json"
#: How long --quiet waits until nothing is on its way any more.
QUIET_S = 120
LOOK_EVERY_S = 0.5
#: Queues whose messages will be rows.
ON_THE_WAY = ("history", "history.alone")
DEAD = "views.dead"

PSQL = ("exec", "-T", "postgres", "psql", "-U", "flixtrail", "-d", "flixtrail", "-XqAt", "-v", "ON_ERROR_STOP=1")
COUNT_OUTBOX = "from pathlib import Path; from os import environ; from streaming_app.outbox import waiting_in; "
COUNT_OUTBOX += "print(waiting_in(Path(environ['OUTBOX'])))"


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="backups")
@click.option(
    "--quiet",
    is_flag=True,
    help="Let nobody in meanwhile, and wait until everything that was accepted is written: then nothing is missing.",
)
def command(folder: Path, *, quiet: bool) -> None:
    """Back up the history of the compose stack into a new folder below FOLDER.

    \b
    history.dump      the database, as of one moment (pg_dump's custom format)
    definitions.json  the broker's users, permissions, policies, queues: no messages
    backup.json       when, how many views, and what is NOT in it

    What was accepted and is not written yet (in the queue, in an outbox) is not in it: it stays where it is, and this
    says how much. With --quiet it is nothing. Dead letters are in no backup: `flixtrail dead list`.
    """  # noqa: D301 (click's \b)
    compose = Compose()
    began = datetime.now(UTC)
    to = folder / began.strftime("%Y-%m-%dT%H-%M-%SZ")
    try:
        to.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise WrongSetting(f"FOLDER: cannot make {to}: {error.strerror}") from None
    try:
        with ended_in_order(), nobody_lets_in(compose) if quiet else nullcontext():
            about = save(compose, to, began)
    except BaseException:
        remove(to)
        raise
    click.echo(f"{to}: {about['views']:,} views, {about['bytes']:,} bytes")
    missing = about["not_in_it"]
    click.echo(
        f"not in it: {missing['messages']} messages in the queue, {missing['outbox_events']} views in outboxes, "
        f"{missing['dead_letters']} dead letters"
    )
    click.echo(f"Back again: make restore FROM={to}")


def save(compose: Compose, to: Path, began: datetime) -> dict[str, Any]:
    """Write the three files, and return what backup.json says."""
    with steps() as step:
        # Before the dump: what is written in between is in both, and nothing is in neither.
        step("counting what is on its way")
        missing = on_the_way(compose)
        step("the broker's definitions")
        compose.save(to / DEFINITIONS, "exec", "-T", "rabbitmq", "rabbitmqctl", "-q", "export_definitions", "-")
        step("the database")
        dump = ("pg_dump", "-U", "flixtrail", "-d", "flixtrail", "--format=custom")
        compose.save(to / HISTORY, "exec", "-T", "postgres", *dump)
        step("reading it once more")
        # Lists what is in it, and fails on half a file.
        tables = compose.feed(to / HISTORY, "exec", "-T", "postgres", "pg_restore", "--list")
        if "TABLE DATA public view_events" not in tables:
            raise DemoError(f"{to / HISTORY} has no view_events in it: was the stack ever started?")
        about = {
            "began_at": began.isoformat(timespec="seconds"),
            "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
            # Of now: views that were written since the dump began are counted, too.
            "views": int(compose(*PSQL, "-c", "SELECT count(*) FROM view_events")),
            "bytes": (to / HISTORY).stat().st_size,
            "not_in_it": missing,
        }
        (to / ABOUT).write_text(json.dumps(about, indent=2) + "\n")
    return about


def on_the_way(compose: Compose) -> dict[str, int]:
    """What was accepted and is not in the database."""
    listed = compose(
        *("exec", "-T", "rabbitmq", "rabbitmqctl", "-q", "--formatter", "json", "list_queues", "name", "messages")
    )
    messages = {queue["name"]: queue["messages"] for queue in json.loads(listed or "[]")}
    outbox = compose("run", "--rm", "--no-deps", "-T", "streaming-app", "python", "-c", COUNT_OUTBOX)
    return {
        "messages": sum(messages.get(name, 0) for name in ON_THE_WAY),
        "outbox_events": int(outbox),
        "dead_letters": messages.get(DEAD, 0),
    }


@contextmanager
def nobody_lets_in(compose: Compose) -> Iterator[None]:
    """Stop the proxy until the end, and wait until everything that was accepted is written. Raises DemoError."""
    compose("stop", "proxy")
    try:
        deadline = monotonic() + QUIET_S
        while (left := on_the_way(compose)) and left["messages"] + left["outbox_events"]:
            if monotonic() > deadline:
                raise DemoError(
                    f"after {QUIET_S} s {left['messages']} messages and {left['outbox_events']} views of outboxes are "
                    "still on their way: are the workers running? Without --quiet the backup is made all the same."
                )
            sleep(LOOK_EVERY_S)
        yield
    finally:
        compose("start", "proxy")


def remove(folder: Path) -> None:
    """A backup that failed is none."""
    for name in (HISTORY, DEFINITIONS, ABOUT):
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()


@contextmanager
def steps() -> Iterator[Any]:
    """Shows the step that is under way, on a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("", spinner="dots") as status:
        yield status.update
