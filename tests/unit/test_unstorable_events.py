"""What cannot be stored is found event by event, and every dead letter says why it is one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import amqp
import msgspec
import psycopg
import pytest
from kombu.message import Message
from sqlalchemy.exc import DataError, OperationalError, ProgrammingError

from history_worker.store.retention import GRACE
from history_worker.unstorable_events import decode_each, id_of, split_too_old, write_storable
from safe_consumer.dead_letter_queue import DeadLetter, DeadLetters
from safe_consumer.dead_letter_reasons import (
    ALONE_SINCE,
    DETAIL,
    KIND,
    KINDS,
    REDRIVEN,
    Malformed,
    arguments,
    one_line,
    reason,
    without_past,
)
from safe_consumer.second_try import try_one
from service.database import TookTooLong, is_refusal
from tests.fakes import an_event, ids
from view_events import topology
from view_events.event import RETENTION, TASK, VERSION, UnknownEventVersion, ViewEvent, encode, first_id

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MS = timedelta(milliseconds=1)


class RefusingWriter:
    """A database that refuses every batch with one of these events in it."""

    def __init__(self, refuses: Sequence[ViewEvent], error: Exception | None = None) -> None:
        self.refuses = {event.event_id for event in refuses}
        self.error = error or DataError("INSERT", {}, psycopg.errors.UntranslatableCharacter("a NUL"))
        self.written: list[ViewEvent] = []
        self.statements = 0

    def write(self, batch: Sequence[ViewEvent]) -> int:
        self.statements += 1
        if any(event.event_id in self.refuses for event in batch):
            raise self.error
        self.written += batch
        return len(batch)


class FakeChannel:
    """Remembers in which order it was told what; `away`: publishing fails."""

    no_ack_consumers = None

    def __init__(self, *, away: bool = False) -> None:
        self.calls: list[str] = []
        self.away = away
        self.published: dict[str, Any] = {}

    def basic_publish(self, message: Any, *, routing_key: str, mandatory: bool, **_: Any) -> None:
        assert mandatory
        if self.away:
            raise ConnectionResetError
        self.published = message.properties["application_headers"]
        self.calls.append(f"publish to {routing_key}")

    def basic_ack(self, tag: int, **_: Any) -> None:
        self.calls.append(f"ack {tag}")


def a_message(body: object = None, *, content_type: Any = "application/json", **headers: Any) -> Message:
    return Message(
        body=body if isinstance(body, bytes) else json.dumps(body),
        content_type=content_type,
        content_encoding="utf-8",
        headers={"task": TASK, "id": "7d0b", "timelimit": [None, None], "eta": None, **headers},
    )


def a_body(events: object, **kwargs: Any) -> list[Any]:
    return [[events], {"version": VERSION, **kwargs}, {}]


EVENTS = encode([an_event(), an_event()])


def test_what_is_no_event_is_refused_and_the_others_go_on() -> None:
    good, bad = EVENTS
    events, refused = decode_each([good, {**bad, "position_s": "far"}, 7, None, {**bad, "kind": "seen"}], VERSION)
    assert encode(events) == [good]
    assert [one.event for one in refused] == [{**bad, "position_s": "far"}, 7, None, {**bad, "kind": "seen"}]
    assert {one.reason.kind for one in refused} == {"no-event"}
    assert refused[0].reason.detail == "Expected `float`, got `str` - at `$.position_s`"


def test_an_id_older_than_what_is_kept_is_refused_alone() -> None:
    edge = NOW - RETENTION - GRACE
    young, at_the_edge, old = (an_event(event_id=first_id(at)) for at in (NOW, edge, edge - MS))
    batch, refused = split_too_old([old, young, at_the_edge], NOW)
    assert batch == [young, at_the_edge]
    assert [(one.text("event_id"), *one.reason) for one in refused] == [
        (str(old.event_id), "too-old", "its id is older than 430 days")
    ]


def test_what_the_streaming_app_takes_has_a_month_to_be_written() -> None:
    event = an_event(event_id=first_id(NOW - RETENTION))
    assert split_too_old([event], NOW + GRACE) == ([event], [])
    assert split_too_old([event], NOW + GRACE + MS)[0] == []


def test_nothing_is_refused_of_nothing() -> None:
    assert split_too_old([], NOW) == ([], [])


def test_a_version_that_is_not_known_refuses_the_whole_message() -> None:
    for events in (EVENTS, [], [7]):
        with pytest.raises(UnknownEventVersion):
            decode_each(events, VERSION + 1)


@pytest.mark.parametrize("events", [None, "events", {"a": 1}, 7])
def test_what_is_no_list_is_not_taken_for_a_thousand_events(events: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_each(events, VERSION)


@pytest.mark.parametrize("where", [(0,), (255,), (511,), (17, 18, 300), tuple(range(512)), ()])
def test_the_database_refuses_single_events_and_gets_all_others(where: tuple[int, ...]) -> None:
    batch = [an_event() for _ in range(512)]
    bad = [batch[index] for index in where]
    database = RefusingWriter(bad)
    stored, refused = write_storable(batch, database.write)
    assert stored == len(batch) - len(bad)
    assert database.written == [event for event in batch if event not in bad]
    assert [one.event for one in refused] == encode(bad)
    assert database.statements <= 1 + 2 * len(bad) * math.log2(len(batch))


def test_an_event_that_takes_too_long_is_refused_alone() -> None:
    batch = [an_event() for _ in range(2_000)]
    database = RefusingWriter([batch[1_234]], TookTooLong(8))
    stored, refused = write_storable(batch, database.write)
    assert stored == len(batch) - 1
    assert [(one.event, one.reason.kind) for one in refused] == [(encode(batch)[1_234], "too-slow")]
    assert database.statements <= 1 + 2 * math.ceil(math.log2(len(batch)))


def test_a_fault_of_the_database_is_no_fault_of_the_events() -> None:
    batch = [an_event() for _ in range(8)]
    for orig in (psycopg.errors.UndefinedTable("no table"), psycopg.errors.InvalidPassword("who?")):
        database = RefusingWriter(batch, ProgrammingError("INSERT", {}, orig))
        with pytest.raises(ProgrammingError):
            write_storable(batch, database.write)
        assert database.statements == 1


def test_nothing_is_written_of_nothing() -> None:
    database = RefusingWriter([])
    assert write_storable([], database.write) == (0, [])
    assert database.statements == 0


def test_which_errors_are_about_the_values() -> None:
    assert is_refusal(DataError("", {}, psycopg.DataError("the client does not even send it")))
    assert is_refusal(DataError("", {}, psycopg.errors.NumericValueOutOfRange("1e400")))
    assert not is_refusal(OperationalError("", {}, psycopg.OperationalError("connection refused")))
    assert not is_refusal(RuntimeError("a bug"))


def test_half_a_surrogate_pair_is_refused_alone() -> None:
    batch = [an_event(), an_event(viewer_id="\ud800")]
    stored, refused = write_storable(batch, lambda part: len(msgspec.json.encode(part)) and len(part))
    assert stored == 1
    assert ids(batch)[1:] == [one.event["event_id"] for one in refused]  # type: ignore[index]
    one_line(refused[0].reason.detail).encode()


def test_a_refused_event_has_the_same_id_each_time() -> None:
    assert id_of(EVENTS[0], "a task") == id_of(dict(EVENTS[0]), "a task")
    assert len({id_of(EVENTS[0], "a task"), id_of(EVENTS[1], "a task"), id_of(EVENTS[0], "another")}) == 3


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (a_message(b"\xff\xfe{"), "undecodable"),
        (a_message(b"hello", content_type="text/plain"), "undecodable"),
        (a_message(b"hello", content_type=None), "undecodable"),
        (a_message(b"\x80\x04", content_type="application/x-python-serialize"), "undecodable"),
        (a_message(b"xx", compression="application/x-gzip"), "undecodable"),
        (a_message(7), "undecodable"),
        (a_message({"a": 1}), "undecodable"),
        (a_message([EVENTS]), "undecodable"),
        (a_message([{}, [], {}]), "undecodable"),
        (a_message(a_body(EVENTS), id=None), "undecodable"),
        (a_message(a_body(EVENTS), task=["x"]), "undecodable"),
        (a_message(a_body(EVENTS), eta="tomorrow"), "undecodable"),
        (a_message(a_body(EVENTS), expires="2020-01-01T00:00:00+00:00"), "undecodable"),
        (a_message(a_body(EVENTS), timelimit="x"), "undecodable"),
        (a_message(a_body(EVENTS), task="history.forget"), "unknown-task"),
        (a_message(a_body(EVENTS, version=VERSION + 1)), "unknown-version"),
        (a_message(a_body("events")), "no-event"),
        (a_message([[], {}, {}]), "no-event"),
        (a_message(a_body([7])), "no-event"),
        (a_message(a_body(EVENTS)), "failed"),
        (a_message(a_body(EVENTS), **{"x-death": [{"reason": "rejected", "queue": "history"}]}), "failed"),
        (a_message(a_body(EVENTS), **{"x-death": [{"reason": "expired", "queue": "history"}]}), "expired"),
        (a_message(a_body(EVENTS), **{"x-death": [{"reason": "delivery_limit", "queue": "h"}]}), "delivery-limit"),
        (a_message(a_body(EVENTS), **{KIND: "database", DETAIL: "22P05 a NUL"}), "database"),
    ],
)
def test_every_dead_letter_has_a_reason(message: Message, kind: str) -> None:
    assert reason(message).kind == kind
    assert kind in KINDS


@pytest.mark.parametrize("body", [None, True, 1.5, "text", [], [[]], [[], {}], [[], {}, {}, {}], [None, {}, {}], {}])
def test_no_json_gets_past_the_check_of_its_shape(body: object) -> None:
    with pytest.raises(Malformed):
        arguments(a_message(body))


def test_a_message_that_is_sent_again_begins_a_new_life() -> None:
    past = {
        "x-death": [],
        "x-delivery-count": 20,
        "x-acquired-count": 21,
        "x-first-death-reason": "rejected",
        "x-last-death-queue": "history",
        KIND: "database",
        DETAIL: "22P05",
        ALONE_SINCE: "2026-06-01T12:00:00+00:00",
    }
    assert without_past({**past, "task": TASK, REDRIVEN: 1, "x-own": 2}) == {"task": TASK, REDRIVEN: 1, "x-own": 2}


def held(channel: FakeChannel, **headers: Any) -> tuple[Any, Message]:
    raw = amqp.Message("{}", content_type="application/json", application_headers=headers)
    return raw, Message(body="{}", content_type="application/json", headers=headers, delivery_tag=7, channel=channel)


def test_a_dead_letter_is_acknowledged_after_its_copy_is_confirmed() -> None:
    channel = FakeChannel()
    DeadLetters(cast("Any", None), cast("Any", channel)).redrive(DeadLetter(*held(channel)))
    assert channel.calls == ["publish to history", "ack 7"]


def test_a_dead_letter_whose_copy_was_not_taken_stays() -> None:
    channel = FakeChannel(away=True)
    with pytest.raises(ConnectionResetError):
        DeadLetters(cast("Any", None), cast("Any", channel)).redrive(DeadLetter(*held(channel)))
    assert channel.calls == []


def test_what_waits_to_be_tried_alone_is_acknowledged_after_its_copy_is_confirmed() -> None:
    for headers, queue in (({"x-delivery-count": 21}, "history.alone"), ({ALONE_SINCE: "now"}, "views.dead")):
        channel = FakeChannel()
        assert try_one(cast("Any", channel), *held(channel, **headers), topology.ALONE)
        assert channel.calls == [f"publish to {queue}", "ack 7"]
        channel = FakeChannel(away=True)
        with pytest.raises(ConnectionResetError):
            try_one(cast("Any", channel), *held(channel, **headers), topology.ALONE)
        assert channel.calls == []


def test_what_was_tried_alone_three_times_is_given_up() -> None:
    channel = FakeChannel()
    assert try_one(cast("Any", channel), *held(channel, **{ALONE_SINCE: "now", "x-delivery-count": 3}), topology.ALONE)
    assert channel.calls == ["publish to views.dead", "ack 7"]
    assert channel.published[KIND] == "delivery-limit"
