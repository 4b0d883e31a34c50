"""`flixtrail backup`: backs up the history and the broker's definitions of the compose stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from flixtrail.compose import Compose, exit_on_signals
from local.errors import DemoError, WrongSetting
from service.waiting import wait_until

HISTORY, DEFINITIONS, ABOUT = "history.dump", "definitions.json", "backup.json"
#: Seconds that --quiet waits until all accepted views are written.
QUIET_TIMEOUT_S = 120
POLL_INTERVAL_S = 0.5
#: Queues whose messages become rows.
WORK_QUEUES = ("history", "history.alone")
DEAD_LETTER_QUEUE = "views.dead"

PSQL = ("exec", "-T", "postgres", "psql", "-U", "flixtrail", "-d", "flixtrail", "-XqAt", "-v", "ON_ERROR_STOP=1")
#: After `git pull` and before `docker compose build`, the image is still of the version before. That one has the outbox
#: in another place.
COUNT_OUTBOX = """
from os import environ
from pathlib import Path
try:
    from streaming_app.recording.outbox import waiting_in
except ImportError:
    from streaming_app.outbox import waiting_in
print(waiting_in(Path(environ['OUTBOX'])))
"""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="backups")
@click.option(
    "--quiet",
    is_flag=True,
    help="Stop the proxy meanwhile, and wait until all accepted views are written. Then no view is missing.",
)
def command(folder: Path, *, quiet: bool) -> None:
    """Back up the history of the compose stack into a new folder below FOLDER.

    \b
    history.dump      the database at one moment (pg_dump's custom format)
    definitions.json  the broker's users, permissions, policies and queues, but no messages
    backup.json       when it was made, how many views it has, and what is NOT in it

    Views that were accepted and not written yet (in the queue or in an outbox) are not in the backup. They stay where
    they are, and the command prints how many there are. With --quiet there are none: the command stops the proxy and
    waits until all views are written. Dead letters are never in a backup: see `flixtrail dead list`.

    To put a backup back, use `flixtrail restore`.
    """  # noqa: D301 (click's \b)
    compose = Compose()
    began = datetime.now(UTC)
    to = folder / began.strftime("%Y-%m-%dT%H-%M-%SZ")
    try:
        to.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise WrongSetting(f"FOLDER: cannot make {to}: {error.strerror}") from None
    try:
        with exit_on_signals(), no_new_views(compose) if quiet else nullcontext():
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
    """Write the three files. Returns the content of backup.json."""
    with steps() as step:
        # Counted before the dump. A view that is written in between is in both, and none is in neither.
        step("counting views that are not written yet")
        missing = count_unwritten(compose)
        step("the broker's definitions")
        compose.save(to / DEFINITIONS, "exec", "-T", "rabbitmq", "rabbitmqctl", "-q", "export_definitions", "-")
        step("the database")
        dump = ("pg_dump", "-U", "flixtrail", "-d", "flixtrail", "--format=custom")
        compose.save(to / HISTORY, "exec", "-T", "postgres", *dump)
        step("checking the dump")
        # Lists the content of the dump, and fails if the file is incomplete.
        tables = compose.feed(to / HISTORY, "exec", "-T", "postgres", "pg_restore", "--list")
        if "TABLE DATA public view_events" not in tables:
            raise DemoError(f"{to / HISTORY} has no view_events in it: was the stack ever started?")
        about = {
            "began_at": began.isoformat(timespec="seconds"),
            "ended_at": datetime.now(UTC).isoformat(timespec="seconds"),
            # Counted now, so it includes views that were written after the dump began.
            "views": int(compose(*PSQL, "-c", "SELECT count(*) FROM view_events")),
            "bytes": (to / HISTORY).stat().st_size,
            "not_in_it": missing,
        }
        (to / ABOUT).write_text(json.dumps(about, indent=2) + "\n")
    return about


def count_unwritten(compose: Compose) -> dict[str, int]:
    """Count what was accepted and is not in the database."""
    listed = compose(
        *("exec", "-T", "rabbitmq", "rabbitmqctl", "-q", "--formatter", "json", "list_queues", "name", "messages")
    )
    messages = {queue["name"]: queue["messages"] for queue in json.loads(listed or "[]")}
    outbox = compose("run", "--rm", "--no-deps", "-T", "streaming-app", "python", "-c", COUNT_OUTBOX)
    return {
        "messages": sum(messages.get(name, 0) for name in WORK_QUEUES),
        "outbox_events": int(outbox),
        "dead_letters": messages.get(DEAD_LETTER_QUEUE, 0),
    }


@contextmanager
def no_new_views(compose: Compose) -> Iterator[None]:
    """Stop the proxy for the duration of the block, and wait until all accepted views are written. Raises DemoError."""
    compose("stop", "proxy")
    try:
        left: dict[str, int] = {}

        def all_written() -> bool:
            left.update(count_unwritten(compose))
            return not left["messages"] + left["outbox_events"]

        if not wait_until(all_written, QUIET_TIMEOUT_S, poll_interval_s=POLL_INTERVAL_S):
            raise DemoError(
                f"After {QUIET_TIMEOUT_S} s, {left['messages']} messages and {left['outbox_events']} views in outboxes "
                "are not written yet. Are the workers running? To make the backup anyway, leave out --quiet."
            )
        yield
    finally:
        compose("start", "proxy")


def remove(folder: Path) -> None:
    """Delete a failed backup."""
    for name in (HISTORY, DEFINITIONS, ABOUT):
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()


@contextmanager
def steps() -> Iterator[Any]:
    """Show the current step, on a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("", spinner="dots") as status:
        yield status.update
