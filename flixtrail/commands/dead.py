"""`flixtrail dead`: shows the dead letters and their reasons, redrives them, or deletes them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flixtrail.commands.options import Group
from local.errors import DemoError, WrongSetting
from local.pasteable_commands import flixtrail_command
from local.printable import quantity, visible, visible_lines
from local.state_option import state_option
from local.suggestions import did_you_mean

if TYPE_CHECKING:
    from safe_consumer.dead_letter_queue import DeadLetter, DeadLetters

#: Rows of the table without --all.
ROWS = 50
WIDTH_IN_A_PIPE = 200
#: How often to check that redriven or dropped dead letters are gone. Mostly, the first check finds none that came back.
MAX_CHECKS = 10
#: Number of ids that are listed if a shortened id matches several.
SHOWN_IDS = 10

amqp_url_option = click.option(
    "--amqp-url", envvar="AMQP_URL", help="The broker, if it is not the demo's.  [env: AMQP_URL]"
)
reason_option = click.option("--reason", metavar="REASON", help="Only dead letters with this reason.")


@click.group(cls=Group)
def command() -> None:
    """Dead letters: messages and single events that could not be stored. List, show, redrive or drop them.

    \b
    A REASON is one of
      undecodable      invalid JSON, or not a Celery message
      unknown-task     no worker has a task of this name
      calls-others     it asks for further tasks; a worker runs only its own task
      unknown-version  its events are newer than the workers: upgrade them, then redrive
      no-event         a field is missing or has the wrong type
      database         PostgreSQL refuses the event for good
      too-slow         PostgreSQL takes too long for this event alone: find out why, then redrive
      too-old          its id is older than what is kept; if you redrive it, it is refused again
      delivery-limit   the workers that ran it died, also when it was tried alone
      failed           the task raised an error; a worker's log has it
      expired          it waited longer than a policy of the broker or the message itself allows
      maxlen           the queue was full, as a policy of the broker says
    You may shorten an ID, as long as it names one message.

    \b
    flixtrail dead list
    flixtrail dead show 69ae
    flixtrail dead redrive 69ae
    flixtrail dead drop --reason undecodable
    """  # noqa: D301 (click's \b)


@command.command("list")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, for programs: all dead letters, with the ids of their events."
)
@click.option("--all", "all_rows", is_flag=True, help=f"Show all rows, not only the first {ROWS}.")
@reason_option
@amqp_url_option
@state_option
def list_(reason: str | None, amqp_url: str | None, state: Path, *, as_json: bool, all_rows: bool) -> None:
    """List the dead letters, oldest first, and count them by reason."""
    with open_dead_letters(amqp_url, state) as dead:
        letters = with_reason(read_all(dead), reason)
        tried_alone = dead.in_second_try()
    counts = Counter(letter.reason.kind for letter in letters)
    if as_json:
        click.echo(json.dumps({"dead_letters": [summary(letter) for letter in letters], "counts": counts}, indent=2))
        return
    if letters:
        show_table(letters if all_rows else letters[:ROWS])
    if len(letters) > ROWS and not all_rows:
        click.echo(f"… and {len(letters) - ROWS} more: --all shows them")
    if tried_alone:
        tried = "is being tried once more, alone" if tried_alone == 1 else "are being tried once more, each alone"
        click.echo(f"{quantity(tried_alone, 'dead letter')} reached the delivery limit and {tried}")
    parts = [f"{count:,} {visible(kind)}" for kind, count in sorted(counts.items())]
    click.echo(": ".join([letter_count(len(letters)), ", ".join(parts)]) if parts else letter_count(0))


@command.command()
@click.argument("letter_id", metavar="ID")
@amqp_url_option
@state_option
def show(letter_id: str, amqp_url: str | None, state: Path) -> None:
    """Show one dead letter completely: its reason, its headers, what the broker says about it, and its body."""
    with open_dead_letters(amqp_url, state) as dead:
        (letter, *same) = with_ids(read_all(dead), (letter_id,))
    if same:
        click.echo(f"it is there {len(same) + 1} times")
    show_letter(letter)


@command.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them.")
@reason_option
@amqp_url_option
@state_option
def redrive(ids: tuple[str, ...], reason: str | None, amqp_url: str | None, state: Path, *, every: bool) -> None:
    """Send dead letters to the work queue again. Use it when the cause is fixed. Redriving twice does no harm: every
    event has an id and is stored once.
    """
    require_selection(ids, reason, every=every)
    with open_dead_letters(amqp_url, state) as dead:
        letters = with_reason(with_ids(read_all(dead), ids) if ids else read_all(dead), reason)
        for_each(letters, dead.redrive, "redriven")
    check_gone(letters, amqp_url, state)
    if letters:
        click.echo(f"What cannot be stored becomes a dead letter again within moments: {flixtrail_command()} dead list")
    click.echo(f"redriven: {quantity(len(letters), 'dead letter')}")


@command.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@reason_option
@amqp_url_option
@state_option
def drop(
    ids: tuple[str, ...], reason: str | None, amqp_url: str | None, state: Path, *, every: bool, yes: bool
) -> None:
    """Delete dead letters. They cannot be brought back."""
    require_selection(ids, reason, every=every)
    with open_dead_letters(amqp_url, state) as dead:
        letters = with_reason(with_ids(read_all(dead), ids) if ids else read_all(dead), reason)
        if letters and not yes:
            click.confirm(f"Delete {quantity(len(letters), 'dead letter')}?", abort=True)
        for_each(letters, dead.drop, "dropped")
    check_gone(letters, amqp_url, state)
    click.echo(f"dropped: {quantity(len(letters), 'dead letter')}")


@contextmanager
def open_dead_letters(amqp_url: str | None, state: Path) -> Iterator[DeadLetters]:
    """Open the dead-letter queue of the named broker, or of the running demo. Raises DemoError."""
    from safe_consumer.dead_letter_queue import AlreadyRead, dead_letters
    from service import connection_advice
    from service.confirming_connection import AWAY

    url = complete_address(amqp_url) if amqp_url else broker_url(state)
    if not url.startswith("amqp"):
        raise DemoError(
            "In learner mode there is no broker that keeps dead letters. Events that PostgreSQL refuses are in its "
            "table pgmq.q_views_dead."
        )
    try:
        with dead_letters(url) as dead:
            yield dead
    except AlreadyRead:
        raise DemoError("another `flixtrail dead` is running. Try again when it has ended.") from None
    except AWAY as error:
        reason = visible(connection_advice.why(error, tls=url.startswith("amqps")), None)
        raise DemoError(
            f"the broker cannot be reached, or went away: {reason}\n"
            "Nothing is lost: dead letters that were not redriven or dropped are still in the dead-letter queue."
        ) from None


def complete_address(amqp_url: str) -> str:
    """Return the address with AMQP_PASSWORD and the files of AMQP_CA_FILE and its siblings. Raises WrongSetting."""
    from service.settings import BrokerSettings, SettingsError, read

    parts = {name: value for name, value in os.environ.items() if name.startswith("AMQP_")}
    try:
        return read(BrokerSettings, {**parts, "AMQP_URL": amqp_url}).amqp_url
    except SettingsError as error:
        raise WrongSetting(str(error)) from None


def broker_url(state: Path) -> str:
    """Return the broker's address of the running demo. Raises NotRunning."""
    from local.state import State

    return str(State(state).read()["broker"]["url"])


def read_all(dead: DeadLetters) -> list[DeadLetter]:
    """Read all dead letters that are there now."""
    from flixtrail.commands.send import progress

    count = dead.waiting()
    with progress() as bar:
        task = bar.add_task("read", total=count)
        return dead.read(count, lambda seen: bar.update(task, completed=seen))


def for_each(letters: Sequence[DeadLetter], do: Callable[[DeadLetter], None], what: str) -> None:
    """Do it for each dead letter, with a progress bar."""
    from flixtrail.commands.send import progress

    with progress() as bar:
        for letter in bar.track(letters, description=what):
            do(letter)


def check_gone(letters: Sequence[DeadLetter], amqp_url: str | None, state: Path) -> None:
    """Check that these dead letters are gone. Drops those that came back, because an acknowledgement may be lost.
    Raises DemoError.
    """
    done = {letter.key for letter in letters}
    for _ in range(MAX_CHECKS if done else 0):
        with open_dead_letters(amqp_url, state) as dead:
            back = [letter for letter in dead.read(dead.waiting()) if letter.key in done]
            for_each(back, dead.drop, "once more")
        if not back:
            return
    if done:
        raise DemoError(f"Some of them keep coming back. This shows which: {flixtrail_command()} dead list")


def require_selection(ids: tuple[str, ...], reason: str | None, *, every: bool) -> None:
    if bool(ids) == (every or reason is not None):
        raise click.UsageError("Give either one ID or more, or --all, or --reason REASON.")


def with_reason(letters: list[DeadLetter], reason: str | None) -> list[DeadLetter]:
    """Return the dead letters with this reason. Raises DemoError for an unknown reason."""
    from safe_consumer.dead_letter_reasons import KINDS

    if reason is None:
        return letters
    # Another program may have written a reason of its own into the header.
    known = [*KINDS, *sorted({letter.reason.kind for letter in letters} - KINDS.keys())]
    if reason not in known:
        raise DemoError(
            f"--reason: {reason!r} is none of {', '.join(map(visible, known))}{did_you_mean(reason, known)}"
        )
    return [letter for letter in letters if letter.reason.kind == reason]


def with_ids(letters: list[DeadLetter], ids: Sequence[str]) -> list[DeadLetter]:
    """Return the dead letters whose id begins with one of these. A message may be there several times. Raises DemoError
    if an id matches no message or several.
    """
    found: dict[str, list[DeadLetter]] = {}
    for wanted in ids:
        matches = [letter for letter in letters if wanted and letter.id.startswith(wanted)]
        whole = {letter.id for letter in matches}
        if not whole:
            raise DemoError(
                f"ID: there is no dead letter {wanted!r}. This lists what there is: {flixtrail_command()} dead list"
            )
        if len(whole) > 1 and wanted not in whole:
            raise DemoError(f"ID: {wanted!r} may mean any of {', '.join(sorted(whole)[:SHOWN_IDS])}")
        one = wanted if wanted in whole else whole.pop()
        found[one] = [letter for letter in matches if letter.id == one]
    return [letter for same in found.values() for letter in same]


def letter_count(count: int) -> str:
    return quantity(count, "dead letter")


def summary(letter: DeadLetter) -> dict[str, Any]:
    """Convert a dead letter to a dictionary for `--json`."""
    return {
        "id": letter.id,
        "reason": letter.reason.kind,
        "detail": letter.reason.detail,
        "died_at": letter.died_at.isoformat() if letter.died_at else None,
        "times": letter.times,
        "task": letter.task,
        "events": len(letter.events),
        "event_ids": letter.of_events("event_id"),
        "viewer_ids": sorted(set(letter.of_events("viewer_id"))),
    }


def show_table(letters: Sequence[DeadLetter]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from safe_consumer.dead_letter_queue import SHORT_ID

    table = Table("", "id", "died", "times", "events", "viewers", "reason", "", box=None, pad_edge=False)
    for row, letter in enumerate(letters, start=1):
        table.add_row(
            str(row),
            Text(visible(letter.id[:SHORT_ID])),
            clock(letter.died_at) if letter.died_at else "",
            str(letter.times),
            str(len(letter.events)) if letter.events else "",
            str(len(set(letter.of_events("viewer_id")))) if letter.events else "",
            Text(visible(letter.reason.kind), style="bold red"),
            Text(visible(letter.reason.detail)),
        )
    console = Console(highlight=False)
    console.print(table) if console.is_terminal else Console(width=WIDTH_IN_A_PIPE, highlight=False).print(table)


def clock(at: datetime) -> str:
    """Format a time in the reader's time zone."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def show_letter(letter: DeadLetter) -> None:
    """Print everything about a dead letter. Its text may be a stranger's, so control characters are
    shown as escapes.
    """
    message = letter.message
    headers = {name: value for name, value in message.headers.items() if value is not None}
    click.echo(f"id      {visible(letter.id)}")
    click.echo(f"reason  {visible(letter.reason.kind)}: {visible(letter.reason.detail)}")
    if letter.died_at:
        click.echo(f"died    {clock(letter.died_at)}")
    click.echo(f"headers {visible_lines(pretty(headers))}")
    click.echo(f"content {visible(message.content_type)}; {visible(message.content_encoding)}")
    click.echo("body")
    click.echo(visible_lines(body(letter)))


def body(letter: DeadLetter) -> str:
    """Format the body: as JSON if it is JSON, otherwise as Python writes it."""
    try:
        return pretty(json.loads(letter.raw.body))
    except (ValueError, RecursionError):
        return repr(letter.raw.body)


def pretty(value: object) -> str:
    """Format a value with an indent. A value that JSON does not have is formatted as Python writes it."""
    try:
        return json.dumps(value, indent=2, default=repr)
    except (TypeError, ValueError, RecursionError):
        return repr(value)
