"""The command line on values that nobody expects, and what it prints for people to paste."""

from __future__ import annotations

import io
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from flixtrail import cli
from flixtrail.commands.send import command as send
from flixtrail.commands.send import describe_missing, one_view_per_viewer, playbacks, retry_after
from flixtrail.commands.watch import Snapshot, line, render
from lessons.harness import book
from lessons.harness.values import VALUES
from local import deadly_views, pasteable_commands, ready_message, slow_views
from local.deadly_viewer import KILLS_ITS_WORKER
from local.errors import BrokerUnreachable, WrongSetting
from local.printable import visible, visible_lines
from local.queue import VISIBILITY_TIMEOUT_S, QueueFigures
from local.running_demo import Worker
from local.unacknowledged import FrozenWorker, Unacknowledged
from tests.fakes import an_event

NOT_NUMBERS = ("nan", "inf", "-inf", "1e400", "-1", "0", "", " ", "x", "1e308x", "9" * 400)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.command, list(arguments))


# -- values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", NOT_NUMBERS)
@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "--state=/nowhere", "5", "--rate"),
        ("send", "--state=/nowhere", "5", "--batch"),
        ("lesson", "exchanges", "--explain", "--speed"),
        ("partitions", "make", "--months"),
    ],
    ids=lambda arguments: arguments[-1],
)
def test_what_is_no_number_within_the_range_is_refused(arguments: tuple[str, ...], value: str) -> None:
    done = run(*arguments, value)
    assert done.exit_code == 2, (value, done.output, done.exception)
    assert arguments[-1] in done.output


@pytest.mark.parametrize("value", [value for value in NOT_NUMBERS if value != "0"])
def test_a_margin_is_a_number(value: str) -> None:
    assert run("erase", "alice", "--margin", value).exit_code == 2


@pytest.mark.parametrize("value", [*NOT_NUMBERS, "1.5", "1" * 30])
def test_how_many_is_a_whole_number(value: str) -> None:
    assert CliRunner().invoke(send, ["--", value]).exit_code == 2
    assert CliRunner().invoke(send, []).exit_code == 2


@pytest.mark.parametrize("lesson", book.NAMES)
def test_every_setting_of_every_lesson_says_which_values_it_takes(lesson: str) -> None:
    from flixtrail.commands.lesson import _setting

    one = book.lesson(lesson)
    assert VALUES[lesson].keys() == one.settings.keys()
    for key, default in one.settings.items():
        assert _setting(one, f"{key}={str(default).lower() if default in (True, False, None) else default}")
        for value in ("foo", "", "-1", "nan", "inf", "1.5", "9" * 5_000, "\x1b[31m", "none " * 3, "²"):
            with pytest.raises(WrongSetting, match="expected"):
                _setting(one, f"{key}={value}")
    for change in ("nonsense=1", "nonsense", "", "="):
        with pytest.raises(WrongSetting):
            _setting(one, change)
    key, value = one.breaks
    assert _setting(one, f"{key}={str(value).lower() if isinstance(value, bool) else value}") == (key, value)


@pytest.mark.parametrize(
    ("lesson", "change"),
    [("work_queue", "prefetch=-1"), ("connections", "channels=1"), ("confirms", "in_flight=0"),
     ("acknowledgement", "ack=foo"), ("poison", "prefetch=none")],
)  # fmt: skip
def test_a_setting_that_a_lesson_cannot_take_is_told_in_a_sentence(lesson: str, change: str) -> None:
    done = run("lesson", lesson, "--set", change)
    assert isinstance(done.exception, WrongSetting)
    assert f"--set {change}: expected " in str(done.exception)


def test_a_pause_that_an_answer_asks_for_is_a_sane_one() -> None:
    assert [retry_after(said, 0.5) for said in (None, "3", "nan", "-1", "1e9", "999999", "²")] == [
        0.5, 3, 0.5, 0.5, 0.5, 10, 0.5,
    ]  # fmt: skip


# -- words -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(("sned",), "send"), (("wrokers",), "workers"), (("workers", "kil"), "kill"), (("dead", "lst"), "list"),
     (("partitions", "mke"), "make")],
)  # fmt: skip
def test_a_mistyped_command_is_answered_with_the_one_that_was_meant(arguments: tuple[str, ...], meant: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert f"Did you mean {meant!r}?" in done.output


def test_a_mistyped_lesson_too() -> None:
    assert "Did you mean 'exchanges'?" in str(run("lesson", "exchagnes").exception)


def test_the_version_is_told() -> None:
    done = run("--version")
    assert done.exit_code == 0
    assert done.output.startswith("flixtrail ")


def test_every_command_says_what_it_does() -> None:
    for name in cli.COMMANDS:
        assert run(name, "--help").exit_code == 0


@pytest.mark.parametrize("state", ["a file", "a file/below"])
def test_a_state_that_is_no_folder_is_told_in_a_sentence(
    state: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", "--state", str(tmp_path / state)])
    assert ended.value.code == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


# -- what is printed -------------------------------------------------------------------------------------


@given(st.text(st.characters()))
def test_a_terminal_shows_others_text_and_obeys_none_of_it(text: str) -> None:
    shown = visible(text, None)
    shown.encode()
    assert "\x1b" not in shown
    assert "\n" not in shown
    assert shown.isprintable() or not text.isprintable()
    assert visible_lines(text).count("\n") == text.count("\n")


def test_long_text_is_cut() -> None:
    assert len(visible("x" * 1_000_000)) == 301


@pytest.mark.parametrize("state", ["plain", "with space", "it's", "käse 영화", "$(touch x)"])
def test_a_command_that_is_printed_names_the_state_folder(state: str, tmp_path: Path) -> None:
    folder = tmp_path / state
    printed = pasteable_commands.flixtrail_command(folder)
    done = subprocess.run(["sh", "-c", f"{printed} --version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("flixtrail ")
    assert shlex.split(printed)[0] == f"STATE={folder.resolve()}"


def test_the_usual_state_folder_is_not_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATE", raising=False)
    assert "STATE" not in pasteable_commands.flixtrail_command()
    monkeypatch.setenv("STATE", "/elsewhere")
    assert pasteable_commands.flixtrail_command().startswith("STATE=/elsewhere ")


def test_the_banner_says_where_rabbitmqs_pages_are() -> None:
    said = ready_message.management_page("http://flixtrail:secret@127.0.0.1:1234")
    assert said == "http://127.0.0.1:1234  (user flixtrail, password secret)"


def test_unacknowledged_messages_are_described_in_words() -> None:
    said = [str(Unacknowledged(0)), str(Unacknowledged(1, 1)), str(Unacknowledged(50, 500)), str(Unacknowledged(3))]
    assert said == [
        "no unacknowledged messages",
        "1 unacknowledged message (1 view)",
        "50 unacknowledged messages (500 views)",
        "3 unacknowledged messages",
    ]


def test_slow_views_wait_for_nobody_elses() -> None:
    """A worker that is frozen keeps its rows locked: another one's views must not be of the same playback."""
    views = one_view_per_viewer([{"id": "clip-1", "duration_s": 25.0}])
    some = [next(views) for _ in range(20)]
    assert len({view["playback_id"] for view in some}) == len({view["viewer_id"] for view in some}) == 20
    assert len(list(zip(playbacks([{"id": "a", "duration_s": 5.0}]), range(9), strict=False))) == 9


def test_learner_mode_hides_messages_as_long_as_is_said() -> None:
    text = (Path(__file__).parents[2] / "celeryconfig.py").read_text()
    assert f'"visibility_timeout": {VISIBILITY_TIMEOUT_S},' in text


def test_only_that_viewer_kills_the_process_that_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, _signal: killed.append(pid))
    write = deadly_views.deadly(lambda _engine, events: len(events))
    assert write(None, [an_event(), an_event(viewer_id="alice")]) == 2
    assert killed == []
    write(None, [an_event(), an_event(viewer_id=KILLS_ITS_WORKER)])
    assert len(killed) == 1


# -- watch -----------------------------------------------------------------------------------------------

WORKERS = [Worker(f"history-worker-{n}", 1_234_567, [], state, None) for n, state in ((1, "frozen"), (2, "running"))]


def a_snapshot(**more: Any) -> Snapshot:
    figures = QueueFigures(
        ready=1_234, unacked=128, redelivered=99_999, dead=12, unacked_by_worker={"history-worker-1": 64}
    )
    return Snapshot(
        figures,
        WORKERS,
        1_000_000,
        999_872,
        came_again=64,
        since=1_800_000_000.0,
        unacked_by_worker=figures.unacked_by_worker,
        **more,
    )


@pytest.mark.parametrize("width", [60, 80, 200])
def test_watch_fits(width: int) -> None:
    frozen = {"history-worker-1": FrozenWorker(1, 0.0, 64, 64, 0, 9e9)}
    out = io.StringIO()
    Console(file=out, width=width).print(render(a_snapshot(frozen=frozen), width))
    shown = out.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    assert all(word in shown for word in ("1,234", "99,999", "1,000,000", "999,872", "history-worker-2", "frozen"))
    assert "came again, changed nothing" in shown
    assert "RabbitMQ closes its connection in " in shown


def test_a_line_of_watch_has_the_same_figures() -> None:
    said = line(a_snapshot())
    assert "ready 1234  unacked 128  redelivered 99999  dead 12" in said
    assert "accepted 1,000,000  outbox 0  stored 999,872  came again 64" in said
    assert "history-worker-1 frozen 64" in said


def test_views_are_locked_before_they_are_sent_also_where_answers_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """And at no moment are all let go: one turn's are locked until the next one's have been sent."""
    now = [0.0]
    locked: dict[int, list[int]] = {}
    open_when_sent: list[int] = []

    class Locks:
        def __init__(self, _url: str) -> None:
            locked[id(self)] = []

        def lock(self, views: list[dict[str, int]]) -> None:
            locked[id(self)] = [view["n"] for view in views]

        def roll_back(self) -> None:
            locked[id(self)] = []

    def post(views: list[dict[str, int]]) -> list[str]:
        (number,) = (view["n"] for view in views)
        assert any(number in ids for ids in locked.values())
        now[0] += 0.7  # a busy machine
        open_when_sent.append(sum(map(len, locked.values())))
        return [str(number)]

    def wait(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(slow_views, "LockingTransaction", Locks)
    monkeypatch.setattr(slow_views, "monotonic", lambda: now[0])
    monkeypatch.setattr(slow_views, "sleep", wait)
    accepted: list[str] = []
    slow_views.send_slowly("", post, iter([{"n": number} for number in range(50)]), 20, accepted)
    assert accepted == [str(number) for number in range(50)]
    assert all(open_when_sent)
    assert not any(locked.values()), "all are let go in the end"


@pytest.mark.parametrize("away", [True, False])
def test_what_is_not_stored_yet_is_on_its_way_and_it_is_said_where(
    monkeypatch: pytest.MonkeyPatch, *, away: bool
) -> None:
    def figures() -> QueueFigures:
        if away:
            raise BrokerUnreachable("frozen")
        return QueueFigures(ready=3, unacked=2, redelivered=0, dead=0)

    monkeypatch.setattr("streaming_app.recording.outbox.waiting_in", lambda _: 20)
    running: Any = SimpleNamespace(state=SimpleNamespace(outbox=Path()), queue=lambda: SimpleNamespace(figures=figures))
    said = describe_missing(running, 25)
    assert said.startswith("25 views still on their way: 20 views in the outbox")
    assert ("the broker does not answer" if away else "3 messages in the queue, 2 messages with workers") in said
