"""The lessons: each proves what it says on a real RabbitMQ, and each can fail."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from flixtrail.local.environment import clean
from lessons import book
from lessons.broker import Broker, running
from lessons.errors import NotProved, Skipped
from tests.conftest import missing, need_rabbitmq
from tests.waiting import until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
#: What `make lessons` promises for all of them.
LIMIT_S = 240
LINES = 100
LESSONS = [lesson.name for lesson in book.lessons()]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    need_rabbitmq()
    with running(tmp_path_factory.mktemp("lessons")) as one:
        yield one


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], float]:
    """What `make lessons` prints, and how long it took."""
    need_rabbitmq()
    began = monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "lessons"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "STATE": str(tmp_path_factory.mktemp("all"))},
        timeout=2 * LIMIT_S,
        check=False,
    )
    sys.stdout.write(done.stdout + done.stderr)  # shown with a test that fails
    return done.stdout.splitlines(), monotonic() - began


@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_proves_what_it_says(told: tuple[list[str], float], name: str) -> None:
    [line] = [line for line in told[0] if re.match(rf" *\d+ {name}\b", line)]
    if "left out" in line:
        missing(line.partition("left out: ")[2])
    assert re.search(r" ok +[1-9]\d* proofs ", line), line


@pytest.mark.timeout(2 * LIMIT_S)
def test_all_of_them_take_less_than_four_minutes(told: tuple[list[str], float]) -> None:
    lines, seconds = told
    assert re.fullmatch(rf"lessons: {len(LESSONS)} passed, 0 failed", lines[-1])
    assert seconds < LIMIT_S


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_fails_when_a_setting_is_wrong(broker: Broker, name: str) -> None:
    """Each has its mutation: otherwise its proofs might be such that nothing can fail them."""
    lesson = book.lesson(name)
    setting, value = lesson.breaks
    assert lesson.settings[setting] != value
    try:
        with pytest.raises(NotProved):
            lesson.run(broker, lambda _event: None, **{setting: value})
    except Skipped as skipped:
        missing(str(skipped))


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_is_short(name: str) -> None:
    assert len(book.lesson(name).source.read_text().splitlines()) < LINES


def test_a_lesson_is_told_step_by_step_and_leaves_nothing_running(tmp_path: Path) -> None:
    need_rabbitmq()
    told = _lesson(tmp_path, "fan_out" if "fan_out" in LESSONS else "exchanges")
    assert told.returncode == 0, told.stderr
    assert "✓" in told.stdout
    assert "Try it" in told.stdout
    assert not _processes(tmp_path)


def test_a_setting_that_breaks_it_is_told_in_a_sentence(tmp_path: Path) -> None:
    need_rabbitmq()
    told = _lesson(tmp_path, "exchanges", "--set", "x_match=any")
    assert told.returncode == 1
    assert "Not proved: only `whole` arrived" in told.stderr
    assert "Traceback" not in told.stderr


def test_ctrl_c_in_the_middle_leaves_nothing_running(tmp_path: Path) -> None:
    need_rabbitmq()
    with subprocess.Popen(
        [sys.executable, "-m", "lessons"], cwd=ROOT, env={**os.environ, "STATE": str(tmp_path)}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()  # the first lesson is over
        process.send_signal(signal.SIGINT)
        process.wait(60)
    until(lambda: not _processes(tmp_path), what="the broker has ended")


def _lesson(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flixtrail", "lesson", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=clean(STATE=str(state)),
        check=False,
    )


def _processes(state: Path) -> list[int]:
    """Those that belong to a state folder."""
    from flixtrail.local import leftovers

    return [process.pid for process in leftovers.processes((state / "lessons").resolve(), works_in=state / "none")]
