"""`flixtrail dead`: what could not be stored and why; send it again, or forget it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flixtrail.commands.options import state_option
from flixtrail.local.errors import DemoError

if TYPE_CHECKING:
    from history_worker.dead_letters import DeadLetter, DeadLetters

#: Rows of the table, unless all are asked for.
ROWS = 50
WIDTH_IN_A_PIPE = 200
#: Each look finds fewer that have come back, mostly none.
LOOKS = 10

amqp_url_option = click.option(
    "--amqp-url", envvar="AMQP_URL", help="The broker, where it is not the demo's.  [env: AMQP_URL]"
)
reason_option = click.option("--reason", metavar="REASON", help="Only those with this reason.")


@click.group()
def command() -> None:
    """Dead letters: messages, and single events, that could not be stored.

    \b
    A REASON is one of
      undecodable      not JSON, or not a Celery message
      unknown-task     no worker knows a task of this name
      unknown-version  its events are newer than the workers: upgrade them, then redrive
      no-event         a field is missing or has the wrong type
      database         PostgreSQL refuses the event for good
      too-old          its id is older than what is kept; sent again, it is refused again
      delivery-limit   the workers that held it died, also when it was tried alone
      failed           the task raised an error; a worker's log has it
    An ID may be shortened, as long as it means one message.
    """  # noqa: D301 (click's \b)


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs: all of them, with the ids of their events.")
@click.option("--all", "all_rows", is_flag=True, help=f"All rows, not the first {ROWS} only.")
@reason_option
@amqp_url_option
@state_option
def list_(reason: str | None, amqp_url: str | None, state: Path, *, as_json: bool, all_rows: bool) -> None:
    """Show the dead letters, oldest first, and how many there are for each reason."""
    with reading(amqp_url, state) as dead:
        letters = matching(read(dead), reason)
        tried_alone = dead.tried_alone()
    counts = Counter(letter.reason.kind for letter in letters)
    if as_json:
        click.echo(json.dumps({"dead_letters": [summary(letter) for letter in letters], "counts": counts}, indent=2))
        return
    if letters:
        show_table(letters if all_rows else letters[:ROWS])
    if len(letters) > ROWS and not all_rows:
        click.echo(f"… and {len(letters) - ROWS} more: --all shows them")
    if tried_alone:
        click.echo(f"{number(tried_alone)} reached the delivery limit and are being tried once more, each alone")
    parts = [f"{count:,} {kind}" for kind, count in sorted(counts.items())]
    click.echo(": ".join([number(len(letters)), ", ".join(parts)]) if parts else number(0))


@command.command()
@click.argument("letter_id", metavar="ID")
@amqp_url_option
@state_option
def show(letter_id: str, amqp_url: str | None, state: Path) -> None:
    """Show one dead letter whole: its reason, headers, what the broker says about it, its body."""
    with reading(amqp_url, state) as dead:
        (letter, *same) = chosen(read(dead), (letter_id,))
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
    """Send dead letters again, to the work queue. Twice does no harm: every event has an id, and is stored once."""
    need_choice(ids, reason, every=every)
    with reading(amqp_url, state) as dead:
        letters = matching(chosen(read(dead), ids) if ids else read(dead), reason)
        each(letters, dead.redrive, "redriven")
    make_sure(letters, amqp_url, state)
    click.echo(f"redriven: {number(len(letters))}")


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
    """Forget dead letters. Nothing brings them back."""
    need_choice(ids, reason, every=every)
    with reading(amqp_url, state) as dead:
        letters = matching(chosen(read(dead), ids) if ids else read(dead), reason)
        if letters and not yes:
            click.confirm(f"Forget {number(len(letters))}?", abort=True)
        each(letters, dead.drop, "dropped")
    make_sure(letters, amqp_url, state)
    click.echo(f"dropped: {number(len(letters))}")


@contextmanager
def reading(amqp_url: str | None, state: Path) -> Iterator[DeadLetters]:
    """The dead-letter queue of that broker, or of the running demo. Raises DemoError."""
    from history_worker.dead_letters import AlreadyRead, dead_letters
    from history_worker.moving import AWAY

    url = amqp_url or broker_url(state)
    if not url.startswith("amqp"):
        raise DemoError(
            "In learner mode there is no broker that keeps dead letters. Events that PostgreSQL refuses lie in its "
            "table pgmq.q_views_dead."
        )
    try:
        with dead_letters(url) as dead:
            yield dead
    except AlreadyRead:
        raise DemoError("another `flixtrail dead` is at work; try again when it is done") from None
    except AWAY as error:
        reason = str(error) or type(error).__name__
        raise DemoError(
            f"the broker cannot be reached, or went away: {reason}\n"
            "Nothing is lost: what was not done yet is still in the dead-letter queue."
        ) from None


def broker_url(state: Path) -> str:
    """Of the running demo. Raises NotRunning."""
    from flixtrail.local.state import State

    return str(State(state).read()["broker"]["url"])


def read(dead: DeadLetters) -> list[DeadLetter]:
    """All that there are just now."""
    from flixtrail.commands.send import progress

    count = dead.waiting()
    with progress() as bar:
        task = bar.add_task("read", total=count)
        return dead.read(count, lambda seen: bar.update(task, completed=seen))


def each(letters: Sequence[DeadLetter], do: Callable[[DeadLetter], None], what: str) -> None:
    """One after another, with a bar."""
    from flixtrail.commands.send import progress

    with progress() as bar:
        for letter in bar.track(letters, description=what):
            do(letter)


def make_sure(letters: Sequence[DeadLetter], amqp_url: str | None, state: Path) -> None:
    """See that none of them is there any more: not every acknowledgement reaches the queue. Raises DemoError."""
    done = {letter.key for letter in letters}
    for _ in range(LOOKS if done else 0):
        with reading(amqp_url, state) as dead:
            back = [letter for letter in dead.read(dead.waiting()) if letter.key in done]
            each(back, dead.drop, "once more")
        if not back:
            return
    if done:
        raise DemoError("some of them keep coming back; `flixtrail dead list` shows which")


def need_choice(ids: tuple[str, ...], reason: str | None, *, every: bool) -> None:
    if bool(ids) == (every or reason is not None):
        raise click.UsageError("Give either one ID or more, or --all, or --reason REASON.")


def matching(letters: list[DeadLetter], reason: str | None) -> list[DeadLetter]:
    """Those with this reason. Raises DemoError for a word that is none."""
    from history_worker.reasons import KINDS

    if reason is None:
        return letters
    if reason not in KINDS:
        raise DemoError(f"--reason: {reason!r} is none of {', '.join(KINDS)}")
    return [letter for letter in letters if letter.reason.kind == reason]


def chosen(letters: list[DeadLetter], ids: Sequence[str]) -> list[DeadLetter]:
    """Those whose id begins so. One message may be there more than once. Raises DemoError unless each means one."""
    found: dict[str, list[DeadLetter]] = {}
    for wanted in ids:
        meant = [letter for letter in letters if letter.id.startswith(wanted)]
        whole = {letter.id for letter in meant}
        if not whole:
            raise DemoError(f"ID: there is no dead letter {wanted!r}; `flixtrail dead list` shows what there is")
        if len(whole) > 1:
            raise DemoError(f"ID: {wanted!r} may mean any of {', '.join(sorted(whole))}")
        found[whole.pop()] = meant
    return [letter for meant in found.values() for letter in meant]


def number(count: int) -> str:
    return f"{count:,} dead letter{'' if count == 1 else 's'}"


def summary(letter: DeadLetter) -> dict[str, Any]:
    """One dead letter, for programs."""
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

    from history_worker.dead_letters import SHORT_ID

    table = Table("", "id", "died", "times", "events", "viewers", "reason", "", box=None, pad_edge=False)
    for row, letter in enumerate(letters, start=1):
        table.add_row(
            str(row),
            letter.id[:SHORT_ID],
            f"{letter.died_at.astimezone():%Y-%m-%d %H:%M:%S}" if letter.died_at else "",
            str(letter.times),
            str(len(letter.events)) if letter.events else "",
            str(len(set(letter.of_events("viewer_id")))) if letter.events else "",
            Text(letter.reason.kind, style="bold red"),
            Text(letter.reason.detail),
        )
    console = Console(highlight=False)
    console.print(table) if console.is_terminal else Console(width=WIDTH_IN_A_PIPE, highlight=False).print(table)


def show_letter(letter: DeadLetter) -> None:
    """Everything about it."""
    click.echo(f"id      {letter.id}")
    click.echo(f"reason  {letter.reason.kind}: {letter.reason.detail}")
    if letter.died_at:
        click.echo(f"died    {letter.died_at.astimezone():%Y-%m-%d %H:%M:%S}")
    message = letter.message
    headers = {name: value for name, value in message.headers.items() if value is not None}
    click.echo(f"headers {json.dumps(headers, indent=2, default=str)}")
    click.echo(f"content {message.content_type}; {message.content_encoding}")
    click.echo("body")
    click.echo(body(letter))


def body(letter: DeadLetter) -> str:
    """As JSON where it is JSON; else as Python writes it."""
    try:
        return json.dumps(json.loads(letter.raw.body), indent=2)
    except ValueError:
        return repr(letter.raw.body)
