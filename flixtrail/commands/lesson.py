"""`flixtrail lesson`: teaches messaging on a real RabbitMQ, one concept at a time, in English or Korean."""

from __future__ import annotations

import shlex
import signal
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flixtrail.commands.options import Number
from local.errors import DemoError, WrongSetting
from local.pasteable_commands import cd_command, flixtrail_command, python_command
from local.state_option import state_option
from local.suggestions import did_you_mean

if TYPE_CHECKING:
    from lessons.harness.book import Lesson


@dataclass(frozen=True)
class Texts:
    """What the command prints around a lesson, in one language."""

    starting: str
    legend: str
    pause: str
    failed: str
    failed_with: str
    stopped: str
    exercise: str
    how_to_play: str


ENGLISH = Texts(
    starting="starting RabbitMQ (about ten seconds)",
    legend=(
        "(views) is an exchange, () is the default exchange, and [history] is a queue. ● is a message on its way.\n"
        "✓ is a sentence that RabbitMQ has just confirmed. ✗ is a sentence that is not true with your settings."
    ),
    pause="Enter: go on",
    failed="Proofs that failed: {count}.",
    failed_with="Proofs that failed with {settings}: {count}.",
    stopped="The lesson could not go on:",
    exercise="Try it",
    how_to_play="`{flixtrail} lesson NAME` plays one. Its page is in docs/lessons/README.md.",
)
KOREAN = Texts(
    starting="RabbitMQ를 시작하는 중입니다(약 10초)",
    legend=(
        "(views)는 익스체인지, ()는 기본 익스체인지, [history]는 큐입니다. ●는 이동 중인 메시지입니다.\n"
        "✓는 RabbitMQ가 방금 확인해 준 문장이고, ✗는 지금 설정에서는 참이 아닌 문장입니다."
    ),
    pause="Enter: 계속",
    failed="실패한 증명: {count}개.",
    failed_with="{settings}(으)로 실패한 증명: {count}개.",
    stopped="레슨을 더 진행할 수 없습니다:",
    exercise="해 보기",
    how_to_play="`{flixtrail} lesson 이름 --ko`로 레슨을 실행합니다. 페이지는 docs/lessons/README.md에 있습니다.",
)


@click.command()
@click.argument("name", required=False)
@click.option("--explain", is_flag=True, help="Print the lesson's page instead of playing it.")
@click.option("--ko", "korean", is_flag=True, help="Play it in Korean (한국어).")
@click.option("--set", "changes", multiple=True, metavar="SETTING=VALUE", help="Change a setting, and see what breaks.")
@click.option("--step", is_flag=True, help="Wait for Enter after each step.")
@click.option("--speed", default=1.0, show_default=True, type=Number(0.1, 100), help="How fast messages move.")
@click.option("--broker", "only_broker", is_flag=True, help="Only run RabbitMQ until Ctrl-C, for your own programs.")
@click.option("--image", envvar="BROKER_IMAGE", help="Use this image of RabbitMQ, in a container.")
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
    only_broker: bool,
) -> None:
    """List the lessons, or play the lesson NAME step by step. It starts a private RabbitMQ.

    \b
    flixtrail lesson                                list the lessons
    flixtrail lesson exchanges                      play one, step by step
    flixtrail lesson exchanges --ko                 play it in Korean
    flixtrail lesson exchanges --set x_match=any    change a setting: which proof fails now?
    flixtrail lesson exchanges --explain            print its page
    flixtrail lesson --broker                       run RabbitMQ for the two programs of the lesson hello
    """  # noqa: D301 (click's \b)
    from lessons.harness import book

    if only_broker:
        run_broker(state / "lessons", image)
        return
    if name is None:
        _list(book.lessons(), korean=korean)
        return
    try:
        lesson = book.lesson(name)
    except KeyError:
        raise WrongSetting(
            f"{name!r} is no lesson.{did_you_mean(name, book.NAMES)} There are: {', '.join(book.NAMES)}"
        ) from None
    if explain:
        _explain(lesson, korean=korean)
        return
    settings = dict(_setting(lesson, change) for change in changes)
    words = KOREAN if korean else ENGLISH
    _play(lesson, settings, state / "lessons", image, words=words, speed=speed, step=step)


def _list(lessons: list[Lesson], *, korean: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    heads = ("", "이름", "내용", "--set") if korean else ("", "name", "what it is about", "--set")
    table = Table(*heads, box=None, pad_edge=False)
    for lesson in lessons:
        settings = " ".join(f"{key}={_format(value)}" for key, value in lesson.settings.items())
        title = lesson.korean.title if korean else lesson.title
        table.add_row(str(lesson.number), lesson.name, title, settings)
    console = Console()
    console.print(table)
    words = KOREAN if korean else ENGLISH
    console.print(f"\n{words.how_to_play.format(flixtrail=flixtrail_command())}", highlight=False, markup=False)


def run_broker(folder: Path, image: str | None) -> None:
    """Run the lessons' RabbitMQ until Ctrl-C, and print how to use it."""
    from lessons.harness.broker import running
    from lessons.harness.stage import on_stage

    click.echo("Starting RabbitMQ (about ten seconds) ...")
    with running(folder, image) as broker, on_stage(broker, "programs", lambda _event: None) as stage:
        python = f"AMQP_URL={shlex.quote(stage.url)} {python_command()} -m lessons.programs"
        click.echo(
            "RabbitMQ runs until you press Ctrl-C. The lesson hello has two programs.\n\n"
            f"Paste this into a second terminal:\n\n  {cd_command()}\n  {python}.hello_receive\n\n"
            f"Paste this into a third terminal, as often as you like:\n\n  {cd_command()}\n"
            f"  {python}.hello_send Hello\n"
        )
        with suppress(KeyboardInterrupt):
            signal.pause()


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
    lesson: Lesson,
    settings: dict[str, Any],
    folder: Path,
    image: str | None,
    *,
    words: Texts,
    speed: float,
    step: bool,
) -> None:
    from amqp.exceptions import AMQPError
    from rich.console import Console

    from lessons.harness import language
    from lessons.harness.broker import running
    from lessons.harness.errors import NotProved, Skipped
    from lessons.harness.telling import Show

    console, korean = Console(highlight=False), words is KOREAN
    language_texts = language.korean(lesson.name) if korean else language.ENGLISH
    with ExitStack() as stack:
        with console.status(words.starting):
            broker = stack.enter_context(running(folder, image))
        console.print(f"[bold]{lesson.number}. {lesson.korean.title if korean else lesson.title}[/bold]\n")
        console.print(words.legend, markup=False)
        try:
            show = Show(console, language_texts, pause=words.pause if step else None, speed=speed)
            lesson.run(broker, show, **settings)
        except NotProved as error:
            changed = " ".join(f"{key}={_format(value)}" for key, value in settings.items())
            failed = words.failed_with if changed else words.failed
            message = failed.format(count=len(error.broken), settings=changed)
            stopped = f" {words.stopped} {_error(error.stopped_by)}" if error.stopped_by else ""
            raise DemoError(f"\n{message}{stopped}") from None
        except Skipped as skipped:
            raise DemoError(f"{lesson.name} cannot be played here: {skipped}") from None
        except Exception as error:
            # With a changed setting, a lesson may fail. That is what the reader wants to see.
            if not (settings or isinstance(error, AMQPError)):
                raise
            raise DemoError(f"\n{words.stopped} {_error(error)}") from None
    console.print(f"\n[bold]{words.exercise}[/bold]\n")
    exercise = lesson.korean.exercise if korean else lesson.exercise
    console.print(exercise.replace(".venv/bin/flixtrail", flixtrail_command()), markup=False)


def _error(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _setting(lesson: Lesson, change: str) -> tuple[str, Any]:
    """Parse a change such as `x_match=any` for the lesson. Raises WrongSetting."""
    key, found, text = change.partition("=")
    if not found or key not in lesson.settings:
        known = ", ".join(f"{name}={_format(value)}" for name, value in lesson.settings.items())
        raise WrongSetting(
            f"--set {change}: expected SETTING=VALUE with one of: {known}.{did_you_mean(key, lesson.settings)}"
        )
    from lessons.harness.values import VALUES

    value = VALUES[lesson.name][key]
    try:
        return key, value.read(text)
    except ValueError:
        raise WrongSetting(f"--set {change}: expected {value}.{did_you_mean(text, value.words)}") from None


def _format(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
