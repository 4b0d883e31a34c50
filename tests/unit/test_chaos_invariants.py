"""The invariant check has to find each kind of violation and name it, and to find nothing where nothing is wrong."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kombu.message import Message

from proof.chaos.found import DeadLetter, Found, Playback, Row, dead_letter
from proof.chaos.guests import MessageFactory
from proof.chaos.invariants import Violation, distinct, judge
from proof.chaos.ledger import ACCEPTED, Attempt, Erasure, Event, ExpectedDeadLetter, Ledger, Sending
from proof.chaos.trail import trail
from view_events.event import new_event_id

NOW = datetime(2026, 5, 17, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PLAYBACK = str(new_event_id())


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def an_event(second: float = 0, **fields: Any) -> Event:
    values = {
        "event_id": str(new_event_id()),
        "viewer_id": "alice",
        "video_id": "clip-1",
        "playback_id": PLAYBACK,
        "kind": "progress",
        "position_s": second,
        "at": at(second),
    }
    return Event(**{**values, **fields})


def send(ledger: Ledger, *events: Event, at_s: float = 10, answer: str = ACCEPTED, **fields: Any) -> Sending:
    """These events in one request that was sent and answered at once."""
    sending = ledger.send(events)
    sending.attempts.append(Attempt(at(at_s), at(at_s), answer, **fields))
    if answer == ACCEPTED:
        ledger.accept(sending)
    return sending


def row(event: Event, received_at: datetime | None = None, **fields: Any) -> Row:
    """As the event is stored, received ten seconds past NOW."""
    received_at = received_at or at(10)
    values = {name: getattr(event, name) for name in Row._fields if name not in {"at", "received_at"}}
    return Row(**{**values, "at": min(event.at, received_at), "received_at": received_at, **fields})


def found(rows: Sequence[Row], *letters: DeadLetter, **fields: Any) -> Found:
    """These rows, and the playbacks that they give."""
    playbacks = {}
    for one in sorted(rows, key=lambda one: (one.at, one.event_id)):
        events = len({other.event_id for other in rows if other.playback == one.playback})
        playbacks[one.playback] = Playback(*one.playback, one.position_s, events)
    return replace(Found(rows, list(playbacks.values()), dead=letters), **fields)


def letter(*events: Event, task_id: str = "task-1") -> DeadLetter:
    body = json.dumps([[[{"event_id": event.event_id} for event in events]], {}, {}])
    return dead_letter(Message(body, headers={"id": task_id}))


def kinds(violations: Sequence[Violation]) -> list[tuple[str, str]]:
    return [(violation.kind, violation.id) for violation in violations]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def test_what_was_accepted_and_stored_once_is_no_violation(ledger: Ledger) -> None:
    events = [an_event(second) for second in range(5)]
    send(ledger, *events)
    assert judge(ledger, found([row(event) for event in events])) == []


def test_what_was_accepted_and_is_not_stored_is_lost(ledger: Ledger) -> None:
    kept, missing = an_event(1), an_event(2)
    send(ledger, kept, missing)
    assert kinds(judge(ledger, found([row(kept)]))) == [("lost", missing.event_id)]


@pytest.mark.parametrize("answer", ["503", "ReadTimeoutError"])
def test_what_was_not_accepted_may_be_stored_or_not(ledger: Ledger, answer: str) -> None:
    stored, missing = an_event(1), an_event(2)
    send(ledger, stored, missing, answer=answer)
    assert judge(ledger, found([row(stored)])) == []


def test_two_rows_of_one_event_are_duplicated(ledger: Ledger) -> None:
    event = an_event()
    send(ledger, event)
    twice = found([row(event), row(event)], playbacks=[Playback("alice", PLAYBACK, "clip-1", 0, 2)])
    assert kinds(judge(ledger, twice)) == [("duplicated", event.event_id)]


def test_an_event_that_a_playback_counts_again_is_duplicated(ledger: Ledger) -> None:
    events = [an_event(1), an_event(2)]
    send(ledger, *events)
    counted = found([row(event) for event in events], playbacks=[Playback("alice", PLAYBACK, "clip-1", 2, 4)])
    assert kinds(judge(ledger, counted)) == [("duplicated", PLAYBACK)] * 2


def test_what_nobody_sent_is_found(ledger: Ledger) -> None:
    event = an_event()
    assert kinds(judge(ledger, found([row(event)]))) == [("never sent", event.event_id)]


@pytest.mark.parametrize("other", [{"viewer_id": "mallory"}, {"kind": "finished"}, {"played_from_s": 0.5}])
def test_what_is_stored_otherwise_than_it_was_sent_is_found(ledger: Ledger, other: dict[str, Any]) -> None:
    event = an_event(1)
    send(ledger, event)
    assert kinds(judge(ledger, found([row(event, **other)]))) == [("never sent", event.event_id)]


def test_a_difference_between_the_log_and_what_is_derived_is_named(ledger: Ledger) -> None:
    line = f"playback {PLAYBACK} of 'clip-1' by 'alice': finished is True, and the log gives False"
    assert kinds(judge(ledger, found([], differences=[line]))) == [("derived", PLAYBACK)]


# -- positions --------------------------------------------------------------------------------------------


def test_a_playback_that_does_not_resume_at_its_latest_event_is_found(ledger: Ledger) -> None:
    early, late = an_event(1), an_event(2)
    send(ledger, late, early)
    wrong = found([row(early), row(late)], playbacks=[Playback("alice", PLAYBACK, "clip-1", 1, 2)])
    assert kinds(judge(ledger, wrong)) == [("position", late.event_id)]


def test_a_playback_that_is_missing_is_found(ledger: Ledger) -> None:
    event = an_event()
    send(ledger, event)
    assert kinds(judge(ledger, found([row(event)], playbacks=[]))) == [("position", event.event_id)]


def test_a_clock_that_is_off_is_put_right_by_what_it_says_itself(ledger: Ledger) -> None:
    event = an_event(5, at=at(5) + HOUR)
    sending = send(ledger, event, answer="503", sent_at=at(9) + HOUR)
    sending.attempts.append(Attempt(at(30), at(30), ACCEPTED, at(29) + HOUR))
    ledger.accept(sending)
    for received_s, stored_s in ((10, 6), (30, 6), (31, 7)):  # by the first attempt, or by one of the second
        assert judge(ledger, found([row(event, at(received_s), at=at(stored_s))])) == []
    wrong = judge(ledger, found([row(event, at(30), at=at(30))]))
    assert kinds(wrong) == [("position", event.event_id)]


def test_a_clock_that_does_not_say_what_time_it_has_is_no_later_than_now(ledger: Ledger) -> None:
    event = an_event(5, at=at(5) + HOUR)
    send(ledger, event)
    assert judge(ledger, found([row(event)])) == []
    assert kinds(judge(ledger, found([row(event, at=event.at)]))) == [("position", event.event_id)]


# -- erased viewers -----------------------------------------------------------------------------------------


def test_an_erased_viewer_keeps_what_was_sent_afterwards_and_nothing_from_before(ledger: Ledger) -> None:
    ledger.erased["alice"] = Erasure(at(20), at(22))
    before, during, after = an_event(1), an_event(2), an_event(3)
    send(ledger, before, at_s=10)
    send(ledger, during, at_s=21)
    send(ledger, after, at_s=23)
    remains = row(after, at(23))
    assert judge(ledger, found([remains])) == []
    assert judge(ledger, found([row(during, at(21)), remains])) == []
    assert kinds(judge(ledger, found([row(before), remains]))) == [("never sent", before.event_id)]
    assert kinds(judge(ledger, found([]))) == [("lost", after.event_id)]


def test_what_was_sent_before_an_erase_and_again_after_it_may_be_either(ledger: Ledger) -> None:
    ledger.erased["alice"] = Erasure(at(20), at(22))
    event = an_event(1)
    sending = send(ledger, event, at_s=10, answer="ReadTimeoutError")
    sending.attempts.append(Attempt(at(23), at(23), ACCEPTED))
    ledger.accept(sending)
    assert judge(ledger, found([])) == []
    assert judge(ledger, found([row(event, at(23))])) == []


def test_after_an_erase_that_failed_nobody_knows(ledger: Ledger) -> None:
    ledger.erased["alice"] = Erasure(at(20), None)
    event, kept = an_event(1), an_event(2)
    send(ledger, event, kept, at_s=10)
    assert judge(ledger, found([row(kept)])) == []


# -- dead letters ---------------------------------------------------------------------------------------------


def test_poison_that_is_not_dead_is_missed_unless_the_broker_never_confirmed_it(ledger: Ledger) -> None:
    ledger.poison["mark"] = ExpectedDeadLetter("poison", confirmed=True)
    ledger.killers["killer"] = ExpectedDeadLetter("killer", confirmed=True)
    ledger.poison["in-doubt"] = ExpectedDeadLetter("poison")
    assert kinds(judge(ledger, found([]))) == [("dead", "mark"), ("dead", "killer")]


def test_poison_may_be_dead_twice(ledger: Ledger) -> None:
    bad = an_event()
    ledger.poison[bad.event_id] = ExpectedDeadLetter("poison", confirmed=True)
    letters = [letter(bad), letter(bad, task_id="again")]
    assert judge(ledger, found([], *letters)) == []
    assert distinct(ledger, letters) == 1


def test_poison_that_is_stored_is_found(ledger: Ledger) -> None:
    bad = an_event()
    ledger.poison[bad.event_id] = ExpectedDeadLetter("poison", confirmed=True)
    assert kinds(judge(ledger, found([row(bad)], letter(bad)))) == [("dead", bad.event_id)]


def test_an_innocent_event_that_is_dead_is_named_even_beside_poison(ledger: Ledger) -> None:
    innocent, bad = an_event(), an_event()
    send(ledger, innocent)
    ledger.poison[bad.event_id] = ExpectedDeadLetter("poison", confirmed=True)
    dead = found([], letter(innocent, bad))
    assert kinds(judge(ledger, dead)) == [("lost", innocent.event_id), ("dead", innocent.event_id)]


def test_a_dead_letter_of_which_nobody_knows_is_named(ledger: Ledger) -> None:
    stray = dead_letter(Message(b"\xff\xfe", headers={"id": "stray"}))
    assert kinds(judge(ledger, found([], stray))) == [("dead", "stray")]


def test_all_kinds_of_poison_are_known_again_when_they_are_dead(ledger: Ledger) -> None:
    host = MessageFactory("guest", "clip-1")
    letters = []
    for guest in [*(host.poison() for _ in range(6)), host.killer("child"), host.killer("parent")]:
        ledger.poison.update({mark: ExpectedDeadLetter(what, confirmed=True) for mark, what in guest.poison.items()})
        ledger.killers.update({mark: ExpectedDeadLetter(what, confirmed=True) for mark, what in guest.killers.items()})
        whole = Message(guest.body, headers=guest.headers)
        # Of a message with good events the worker has only taken out what is bad.
        bad = [json.dumps(mark) for mark in guest.poison]
        letters.append(dead_letter(Message(f"[[[{bad[0]}]], {{}}, {{}}]") if guest.events else whole))
    assert len(ledger.deadly) == len(letters) == 8
    assert judge(ledger, found([], *letters)) == []
    assert distinct(ledger, letters) == 8
    for missing in range(len(letters)):
        remaining = [one for index, one in enumerate(letters) if index != missing]
        assert [kind for kind, _ in kinds(judge(ledger, found([], *remaining)))] == ["dead"]


# -- trails -----------------------------------------------------------------------------------------------


def test_a_trail_tells_what_everybody_knows_of_an_event(ledger: Ledger, tmp_path: Path) -> None:
    event = an_event()
    send(ledger, event, answer="503").attempts.append(Attempt(at(12), at(13), ACCEPTED))
    ledger.erased["alice"] = Erasure(at(20), at(22))
    (tmp_path / "outbox").mkdir()
    with closing(sqlite3.connect(tmp_path / "outbox" / "one.sqlite")) as outbox:
        outbox.execute("CREATE TABLE requests (number INTEGER, body BLOB)")
        outbox.execute("INSERT INTO requests VALUES (7, ?)", (f'[{{"event_id":"{event.event_id}"}}]'.encode(),))
        outbox.commit()
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "worker.log").write_text("nothing\nevent refused task_id=task-1\n")
    lines = list(trail(event.event_id, ledger, found([row(event)], letter(event)), tmp_path))
    for told in ("503", "202", "erased", "view_events", "views.dead", "outbox: request 7", "worker.log: event refused"):
        assert any(told in line for line in lines), (told, lines)
