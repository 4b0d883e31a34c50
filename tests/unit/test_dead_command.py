"""Every header and every body of a dead letter is a stranger's: none ends the commands, and no terminal obeys it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu.message import Message

from flixtrail.cli import command
from flixtrail.commands import dead as dead_command
from safe_consumer.dead_letter_queue import DeadLetter, moment
from safe_consumer.dead_letter_reasons import DETAIL, KIND, KINDS, REDRIVEN, WHEN
from view_events.event import TASK, VERSION

#: What a terminal may be sent: text, and ends of lines.
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
ESCAPE = "\x1b[31m\x1b]0;mine\x07"


def a_letter(body: Any = None, content_type: Any = "application/json", **headers: Any) -> DeadLetter:
    text = body if isinstance(body, bytes | str) else json.dumps([[[body]], {"version": VERSION}, {}])
    message = Message(body=text, content_type=content_type, content_encoding="utf-8", headers=headers)
    return DeadLetter(SimpleNamespace(body=text, properties={}), message)


def run(monkeypatch: pytest.MonkeyPatch, letters: list[DeadLetter], *arguments: str) -> Result:
    """`flixtrail dead ARGUMENTS` with these in the queue."""

    @contextmanager
    def reading(*_: Any) -> Iterator[Any]:
        yield SimpleNamespace(
            waiting=lambda: len(letters),
            read=lambda _count, *_: letters,
            in_second_try=lambda: 0,
            drop=lambda _: None,
            redrive=lambda _: None,
        )

    monkeypatch.setattr(dead_command, "open_dead_letters", reading)
    return CliRunner().invoke(command, ["dead", *arguments])


def prints(letter: DeadLetter, monkeypatch: pytest.MonkeyPatch) -> str:
    """What all commands that look print of it; fails when one ends in anything but its exit status."""
    said = []
    for arguments in (["list"], ["list", "--json"], ["show", letter.id]):
        done = run(monkeypatch, [letter], *arguments)
        assert done.exit_code == 0, done.output
        said.append(done.output)
    return "".join(said)


@pytest.mark.parametrize(
    "headers",
    [
        {WHEN: "yesterday"},
        {WHEN: "2026-11-28T10:00:00"},
        {WHEN: "0001-01-01T00:00:00+14:00"},
        {WHEN: "9999-12-31T23:59:59-14:00"},
        {"x-death": ["lol"]},
        {"x-death": [{"reason": ["rejected"], "queue": {}, "time": "now"}]},
        {"x-death": [{"reason": "rejected", "time": datetime.max}]},  # noqa: DTZ901 (as py-amqp gives it)
        {"id": "[/bold]x"},
        {"id": f"{ESCAPE}x"},
        {"id": 7, "task": ["x"], REDRIVEN: "x"},
        {REDRIVEN: 2**63 - 1},
        {REDRIVEN: True},
        {KIND: ESCAPE, DETAIL: f"[/red]{ESCAPE}\u202e\ud800"},
        {"task": TASK, "id": "x", "compression": "nonsense"},
        {"task": TASK, "id": "x", "viewer": {"a": [b"\x1b", 1.5, None, datetime(2026, 1, 1)]}},  # noqa: DTZ001 (as above)
    ],
    ids=str,
)
def test_a_strangers_header_is_shown_and_not_obeyed(headers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    letter = a_letter({"viewer_id": ESCAPE, "event_id": [ESCAPE]}, **headers)
    assert not OBEYED.search(prints(letter, monkeypatch))
    assert 1 <= letter.times < 2**31


@pytest.mark.parametrize("body", [b"\xff\x1b[31m", "[" * 100_000, ESCAPE, "1" * 10_000, b"", "null", '{"a": NaN}'])
def test_a_strangers_body_is_shown_and_not_obeyed(body: bytes | str, monkeypatch: pytest.MonkeyPatch) -> None:
    for content_type in ("application/json", "text/plain", None, ESCAPE):
        assert not OBEYED.search(prints(a_letter(body, content_type, task=TASK, id="x"), monkeypatch))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary()
    | st.datetimes() | st.just(ESCAPE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
NAMES = st.sampled_from(["id", "task", KIND, DETAIL, WHEN, REDRIVEN, "x-death", "timelimit", "compression", "eta"])


@settings(max_examples=50)
@given(
    st.dictionaries(NAMES, VALUES, max_size=6),
    st.binary() | st.text(st.characters(exclude_categories=["Cs"])) | VALUES.map(repr),
)
def test_no_message_ends_the_commands(headers: dict[str, Any], body: bytes | str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        assert not OBEYED.search(prints(a_letter(body, **headers), monkeypatch))


def test_one_hostile_letter_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    good = a_letter({"viewer_id": "alice"}, task=TASK, id="good-one", **{KIND: "database", DETAIL: "22P05"})
    bad = a_letter(task=TASK, id="[/bold]x", **{WHEN: "yesterday", KIND: "[/]", "x-death": [1]})
    listed = run(monkeypatch, [bad, good], "list").output
    assert "good-one" in listed
    assert "2 dead letters: 1 [/], 1 database" in listed


@pytest.mark.parametrize("wanted", ["", "x", "\x1b"])
def test_an_id_that_means_none_is_refused(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one would mean all of them."""
    for arguments in (["show", wanted], ["redrive", wanted], ["drop", wanted, "--yes"]):
        done = run(monkeypatch, [a_letter(task=TASK, id="good-one")], *arguments)
        assert "there is no dead letter" in str(done.exception)


def test_a_time_without_a_zone_is_utc() -> None:
    assert moment("2026-11-28T10:00:00") == datetime(2026, 11, 28, 10, tzinfo=UTC)
    assert moment("2026-11-28T10:00:00+09:00") == datetime(2026, 11, 28, 1, tzinfo=UTC)
    assert moment(7) is moment("") is moment(None) is moment(["2026-11-28"]) is None


def test_every_reason_is_explained() -> None:
    help_ = CliRunner().invoke(command, ["dead", "--help"]).output
    assert all(f"  {kind} " in help_ for kind in KINDS)
