"""The lessons: each proves what it says on a real RabbitMQ, and each can fail.

All are played on one node. The lessons of `RESTARTING` end with a restart of the broker: they are played at the same
time, each in its own virtual host, and share one restart.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import pytest
from click.testing import CliRunner

from flixtrail.cli import command as flixtrail
from flixtrail.commands.lesson import run_broker
from lessons.__main__ import main as every_lesson
from lessons.harness import book, stage
from lessons.harness.broker import Broker, running
from lessons.harness.errors import Skipped
from lessons.harness.events import Broken, Event, Explained, Proved
from local.errors import DemoError
from tests.conftest import missing, need_rabbitmq
from tests.waiting import until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
#: What `make lessons` promises for all of them.
LIMIT_S = 240
LESSONS = [lesson.name for lesson in book.lessons()]
RESTARTING = ("exchanges", "properties", "queues")
#: With the setting of `BREAKS`, the first proof that fails has this in its sentence.
FAILS_FIRST = {
    "hello": "[hello] has a consumer",
    "messaging": "The message waits in [history].",
    "connections": "with 405",
    "exchanges": "Only `whole` arrived",
    "bindings": "the broker returns it (312 NO_ROUTE)",
    "properties": "Only the correlation id finds the answer to 3.",
    "queues": "[history] is still there",
    "queue_limits": "[bytes] dead-lettered a",
    "push_and_pull": "the slow one got 1 task",
    "work_queue": "The slow worker got 1 job",
    "acknowledgement": "All three jobs are in [work] again.",
    "confirms": "The broker returned message 5",
    "poison": "The killer is in [dead].",
    "fan_out": "got view 1 each",
    "backpressure": "accepted five and refused two",
    "exactly_once": "rows and {seconds} seconds",
    "containers": "One layer is new",
}
#: More settings for that, to be quick.
QUICK = {"exactly_once": {"crashes": 5}}
Played = tuple[list[Event], float]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    need_rabbitmq()
    with running(tmp_path_factory.mktemp("lessons")) as one:
        yield one


class SharedRestart:
    """The same broker for lessons that are played at the same time: it restarts when all of them ask for it."""

    def __init__(self, broker: Broker, lessons: int) -> None:
        self._broker = broker
        self._barrier = Barrier(lessons, action=broker.restart)
        self.amqp_url, self.management_url, self.ctl = broker.amqp_url, broker.management_url, broker.ctl

    def restart(self, *, kill: bool = False) -> None:
        assert not kill
        self._barrier.wait(120)

    def give_up(self) -> None:
        """Let the others fail, too, instead of waiting for a lesson that has failed before its restart."""
        self._barrier.abort()


@pytest.fixture(scope="module")
def restarted(broker: Broker) -> dict[str, Played | BaseException]:
    """What the lessons of `RESTARTING` told."""
    shared = SharedRestart(broker, len(RESTARTING))

    def one(name: str) -> Played | BaseException:
        told: list[Event] = []
        try:
            return told, book.lesson(name).run(shared, told.append)
        except Exception as error:  # noqa: BLE001 (the lesson's own test raises it)
            shared.give_up()
            return error

    with ThreadPoolExecutor(len(RESTARTING)) as pool:
        return dict(zip(RESTARTING, pool.map(one, RESTARTING), strict=True))


@pytest.fixture(scope="module")
def seconds() -> dict[str, float]:
    """How long each lesson took."""
    return {}


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_proves_what_it_says(
    broker: Broker, restarted: dict[str, Played | BaseException], seconds: dict[str, float], name: str
) -> None:
    told: list[Event] = []
    if name in RESTARTING:
        played = restarted[name]
        if isinstance(played, BaseException):
            raise played
        told, seconds[name] = played
    else:
        try:
            seconds[name] = book.lesson(name).run(broker, told.append)
        except Skipped as skipped:
            missing(str(skipped))
    assert sum(isinstance(event, Proved) for event in told) > 3
    assert not any(isinstance(event, Broken) for event in told)


def test_all_of_them_take_less_than_four_minutes(seconds: dict[str, float]) -> None:
    assert sum(seconds.values()) < LIMIT_S


class _Enough(Exception):
    """The first proof has failed."""


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_fails_when_a_setting_is_wrong(broker: Broker, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each has its mutation: otherwise its proofs might be such that nothing can fail them."""
    monkeypatch.setattr(stage, "EVENTUALLY_S", 5)  # what does not come takes that long
    lesson, told = book.lesson(name), list[Event]()
    setting, value = lesson.breaks
    assert lesson.settings[setting] != value

    def tell(event: Event) -> None:
        told.append(event)
        if isinstance(event, Explained):
            raise _Enough

    try:
        with pytest.raises(_Enough):
            lesson.run(broker, tell, **{setting: value}, **QUICK.get(name, {}))
    except Skipped as skipped:
        missing(str(skipped))
    *_, broken, explained = told
    assert isinstance(broken, Broken)
    assert FAILS_FIRST[name] in broken.sentence
    assert explained == Explained(lesson.why[setting])


@pytest.fixture
def on_our_broker(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Broker:
    """The commands use the broker that runs already."""

    @contextmanager
    def ours(*_: object) -> Iterator[Broker]:
        yield broker

    monkeypatch.setattr("lessons.__main__.running", ours)
    monkeypatch.setattr("lessons.harness.broker.running", ours)
    return broker


@pytest.mark.usefixtures("on_our_broker")
def test_each_lesson_has_a_line() -> None:
    done = CliRunner().invoke(every_lesson, ["bindings", "fan_out"])
    first, second, last = done.output.splitlines()
    assert re.fullmatch(r" 5 bindings +ok +\d+ proofs +[\d.]+ s  Bindings: .*", first)
    assert re.match(r"\d+ fan_out +ok +\d+ proofs ", second)
    assert last == "lessons: 2 passed, 0 failed"
    assert done.exit_code == 0


@pytest.mark.usefixtures("on_our_broker")
def test_a_lesson_is_told_step_by_step() -> None:
    done = CliRunner().invoke(flixtrail, ["lesson", "fan_out"])
    assert done.exit_code == 0
    assert "[history] is a queue" in done.output
    assert "✓ History, recommendations and the page got view 1 each." in done.output
    assert "Try it" in done.output


@pytest.mark.usefixtures("on_our_broker")
def test_a_setting_that_breaks_it_is_explained_and_the_rest_goes_on() -> None:
    done = CliRunner().invoke(flixtrail, ["lesson", "bindings", "--set", "mandatory=False", "--ko"])
    before, found, after = done.output.partition("✗ `mandatory`를 붙이면")
    assert found, done.output
    assert "[history]는 큐입니다" in before
    assert "이유: `mandatory`가 없으면" in re.sub(r"\s+", " ", after)
    assert "✓" in before
    assert "✓" in after
    assert isinstance(done.exception, DemoError)
    assert str(done.exception) == "\nmandatory=false(으)로 실패한 증명: 1개."


@pytest.mark.usefixtures("on_our_broker")
def test_the_commands_for_two_terminals_work_as_they_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    received: list[str] = []

    def paste() -> None:
        receive, send = re.findall(r"^  (cd .*)\n  (.*)$", capsys.readouterr().out, re.MULTILINE)
        # `exec`: Ctrl-C must reach Python, as in a terminal.
        in_terminal = f"{receive[0]}\n{receive[1].replace('AMQP_URL=', 'exec env AMQP_URL=')}"
        with subprocess.Popen(in_terminal, shell=True, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as receiver:
            assert receiver.stdout
            pasted = f"{send[0]}\n{send[1]}"
            sent = subprocess.run(pasted, check=True, shell=True, capture_output=True, text=True, cwd=tmp_path)
            received.extend([sent.stdout.strip(), receiver.stdout.readline().strip()])
            receiver.send_signal(signal.SIGINT)
        received.append(str(receiver.returncode))
        raise KeyboardInterrupt

    monkeypatch.setattr(signal, "pause", paste)
    run_broker(tmp_path, None)
    assert received == ["Sent: Hello", "Received: Hello", "0"]


def test_ctrl_c_in_the_middle_leaves_nothing_running(tmp_path: Path) -> None:
    need_rabbitmq()
    with subprocess.Popen(
        [sys.executable, "-m", "lessons", "fan_out", "work_queue"],
        cwd=ROOT,
        env={**os.environ, "STATE": str(tmp_path)},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        process.stdout.readline()  # the first lesson is over
        process.send_signal(signal.SIGINT)
        process.wait(60)
    until(lambda: not _processes(tmp_path), what="the broker has ended")


def _processes(state: Path) -> list[int]:
    """Those that belong to a state folder."""
    from local import leftover_processes

    return [
        process.pid for process in leftover_processes.processes((state / "lessons").resolve(), works_in=state / "none")
    ]
