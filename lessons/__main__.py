"""`python -m lessons`: plays every lesson on one private RabbitMQ, and prints a line for each. This is `make lessons`.

Exit status 1: a lesson failed.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import click

from lessons.harness import book, output
from lessons.harness.broker import Broker, running
from lessons.harness.errors import Skipped
from lessons.harness.events import Event
from local.errors import DemoError
from local.state_option import state_option


@click.command()
@click.argument("names", nargs=-1)
@click.option("--image", envvar="BROKER_IMAGE", metavar="IMAGE", help="Use this image of RabbitMQ, in a container.")
@state_option
@click.option("--record", envvar="RECORD", is_flag=True, help="Keep the output, for the pages in docs/lessons.")
def main(names: tuple[str, ...], image: str | None, state: Path, *, record: bool) -> None:
    """Run all lessons, or those with these NAMES.

    \b
    make lessons                        all of them
    ONLY="exchanges queues" make lessons
    BROKER_IMAGE=rabbitmq:4.3.6-management make lessons
    """  # noqa: D301 (click's \b)
    try:
        chosen = [book.lesson(name) for name in names] or book.lessons()
    except KeyError as error:
        raise click.BadParameter(f"no lesson {error}; there are: {', '.join(book.NAMES)}") from None
    passed = failed = 0
    try:
        with running(state / "lessons", image) as broker:
            for lesson in chosen:
                result = _one(lesson, broker, record=record)
                passed, failed = passed + (result is True), failed + (result is False)
    except DemoError as error:
        click.echo(error, err=True)
        failed += 1
    click.echo(f"lessons: {passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


def _one(lesson: book.Lesson, broker: Broker, *, record: bool) -> bool | None:
    """Play one lesson. Return whether it passed; None: it was left out."""
    told: list[Event] = []
    head = f"{lesson.number:2} {lesson.name:16}"
    try:
        seconds = lesson.run(broker, told.append)
    except Skipped as skipped:
        click.echo(f"{head} left out: {skipped}")
        return False if os.environ.get("REQUIRE_ALL") == "1" else None
    except Exception as error:  # noqa: BLE001 (the other lessons go on)
        click.echo(f"{head} FAILED after {len(told)} steps: {type(error).__name__}: {error}")
        click.echo(traceback.format_exc(limit=-3), err=True)
        return False
    click.echo(f"{head} ok  {output.proofs(told):3} proofs  {seconds:5.1f} s  {lesson.title}")
    if record:
        output.keep(lesson.name, told)
    return True


if __name__ == "__main__":
    main()
