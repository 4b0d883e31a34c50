"""`flixtrail lesson`: messaging, one concept at a time, on a real RabbitMQ."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flixtrail.commands.options import state_option
from flixtrail.local.errors import DemoError, WrongSetting

if TYPE_CHECKING:
    from lessons.book import Lesson


@click.command()
@click.argument("name", required=False)
@click.option("--explain", is_flag=True, help="Print the lesson's page instead of running it.")
@click.option("--ko", "korean", is_flag=True, help="The page in Korean (한국어), with --explain.")
@click.option("--set", "changes", multiple=True, metavar="SETTING=VALUE", help="Change a setting, and see what breaks.")
@click.option("--step", is_flag=True, help="Wait for Enter after each step.")
@click.option("--speed", default=1.0, show_default=True, type=click.FloatRange(0.1, 100), help="Of moving messages.")
@click.option("--image", envvar="BROKER_IMAGE", help="Run it on this image of RabbitMQ, in a container.")
@state_option
def command(
    name: str | None,
    changes: tuple[str, ...],
    speed: float,
    image: str | None,
    state: Path,
    *,
    explain: bool,
    korean: bool,
    step: bool,
) -> None:
    """List the lessons, or tell the one called NAME step by step, on a RabbitMQ of its own.

    \b
    flixtrail lesson                                the list
    flixtrail lesson exchanges                      step by step
    flixtrail lesson exchanges --set x_match=any    change a setting: which proof fails now?
    flixtrail lesson exchanges --explain --ko       its page, in Korean
    """  # noqa: D301 (click's \b)
    from lessons import book

    if name is None:
        _list(book.lessons())
        return
    try:
        lesson = book.lesson(name)
    except KeyError:
        raise WrongSetting(f"{name!r} is no lesson. There are: {', '.join(book.NAMES)}") from None
    if explain:
        _explain(lesson, korean=korean)
        return
    settings = dict(_setting(lesson, change) for change in changes)
    _play(lesson, settings, state / "lessons", image, speed=speed, step=step)


def _list(lessons: list[Lesson]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "name", "what it is about", "settings", box=None, pad_edge=False)
    for lesson in lessons:
        settings = " ".join(f"{key}={_shown(value)}" for key, value in lesson.settings.items())
        table.add_row(str(lesson.number), lesson.name, lesson.title, settings)
    console = Console()
    console.print(table)
    console.print("\nflixtrail lesson NAME plays one; docs/lessons/README.md has their pages.", highlight=False)


def _explain(lesson: Lesson, *, korean: bool) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    from lessons import pages

    try:
        page = pages.korean(lesson) if korean else pages.english(lesson)
    except FileNotFoundError as error:
        raise DemoError(
            f"The pages are made from the repository's docs/lessons: {error.filename} is missing."
        ) from None
    Console().print(Markdown(page.removeprefix(pages.GENERATED)))


def _play(
    lesson: Lesson, settings: dict[str, Any], folder: Path, image: str | None, *, speed: float, step: bool
) -> None:
    from amqp.exceptions import AMQPError
    from rich.console import Console

    from lessons.broker import running
    from lessons.errors import NotProved, Skipped
    from lessons.telling import Show

    console = Console(highlight=False)
    with ExitStack() as stack:
        with console.status("starting RabbitMQ (some ten seconds)"):
            broker = stack.enter_context(running(folder, image))
        console.print(f"[bold]{lesson.number}. {lesson.title}[/bold]")
        try:
            lesson.run(broker, Show(console, pause=step, speed=speed), **settings)
        except NotProved as error:
            raise DemoError(f"\nNot proved: {error}") from None
        except AMQPError as error:  # a setting, perhaps, with which the lesson cannot even go on
            raise DemoError(f"\nThe lesson could not go on: {type(error).__name__}: {error}") from None
        except Skipped as skipped:
            raise DemoError(f"{lesson.name} cannot be played here: {skipped}") from None
    console.print("\n[bold]Try it[/bold]\n")
    console.print(lesson.exercise, markup=False)


def _setting(lesson: Lesson, change: str) -> tuple[str, Any]:
    """`x_match=any` as the lesson takes it. Raises WrongSetting."""
    key, found, text = change.partition("=")
    known = ", ".join(f"{name}={_shown(value)}" for name, value in lesson.settings.items())
    if not found or key not in lesson.settings:
        raise WrongSetting(f"--set {change}: expected SETTING=VALUE with one of: {known}")
    default = lesson.settings[key]
    try:
        return key, _as(type(default), text)
    except (KeyError, ValueError):
        raise WrongSetting(f"--set {change}: expected a value like {_shown(default)}") from None


def _as(kind: type, text: str) -> Any:
    if kind is bool:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
    if text.lower() == "none":
        return None
    return kind(text) if kind in {int, float} else text


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
