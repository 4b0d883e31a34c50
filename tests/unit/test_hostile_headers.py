"""Every header of a message is a stranger's: nothing that reads one raises, and nothing else reaches Celery."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from amqp.serialization import dumps, loads
from hypothesis import given
from hypothesis import strategies as st
from kombu.message import Message

from history_worker.unstorable_events import Unstorable, decode_each, id_of, letters
from safe_consumer.dead_letter_reasons import (
    ALONE_SINCE,
    DETAIL,
    KIND,
    REDRIVEN,
    WHEN,
    Malformed,
    Reason,
    celery_headers,
    check_outline,
    count_in,
    fault,
    fault_of_events,
    is_forged,
    last_death,
    one_line,
    reason,
    without_past,
)
from view_events.event import TASK

#: What AMQP can bring in a header, unsigned numbers included.
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1)),  # noqa: DTZ001 (as py-amqp makes them)
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
OURS = (KIND, DETAIL, WHEN, REDRIVEN, ALONE_SINCE)
CELERYS = ("id", "task", "root_id", "parent_id", "group", "callbacks", "chain", "eta", "expires", "timelimit", "stamps")
BROKERS = ("x-death", "x-delivery-count", "x-first-death-reason", "x-last-death-queue", "compression", "CC")
HEADERS = st.dictionaries(st.sampled_from((*OURS, *CELERYS, *BROKERS)) | st.text(max_size=10), VALUES, max_size=8)
BODY = b'[[[]], {"version": 1}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


def message(headers: dict[str, Any], body: bytes = BODY) -> Message:
    return Message(body=body, content_type="application/json", content_encoding="utf-8", headers=headers)


@given(HEADERS)
def test_no_header_makes_anything_raise(headers: dict[str, Any]) -> None:
    one = message(headers)
    try:
        check_outline(one)
    except Malformed as malformed:
        assert malformed.reason.kind
    fault(one)
    fault_of_events_if_there_are_some(one)
    reason(one)
    last_death(headers)
    is_forged(headers)
    for name in headers:
        assert count_in(headers, name) >= 0


def fault_of_events_if_there_are_some(one: Message) -> None:
    if fault(one) is None:
        fault_of_events(one)


@given(HEADERS)
def test_celery_sees_texts_of_one_line_and_a_count(headers: dict[str, Any]) -> None:
    seen = celery_headers(headers)
    assert set(seen) <= {"id", "task", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", REDRIVEN}
    assert type(seen.pop(REDRIVEN)) is int
    for text in seen.values():
        assert isinstance(text, str)
        text.encode()
        assert text == one_line(text)


@given(HEADERS)
def test_a_copy_can_always_be_sent(headers: dict[str, Any]) -> None:
    """Also what AMQP brings and does not take, such as the larger half of unsigned numbers."""
    copied = without_past(headers)
    assert not is_forged(copied)
    loads("F", dumps("F", [copied]), 0)


def test_headers_that_rabbitmq_writes_are_not_forged() -> None:
    death = {
        "count": 1,
        "reason": "rejected",
        "queue": "history",
        "time": datetime(2026, 11, 28, tzinfo=UTC),
        "exchange": "views",
        "routing-keys": ["view.progress"],
    }
    assert not is_forged(
        {"x-death": [death, death], "x-first-death-reason": "rejected", "x-delivery-count": 3, "x-acquired-count": 3}
    )
    assert is_forged({"x-death": [death, "lol"]})


@pytest.mark.parametrize(
    "third",
    [b"null", b"{}", b'{"callbacks": null, "errbacks": null, "chain": null, "chord": null}', b'{"callbacks": []}'],
)
def test_an_empty_third_part_is_taken_as_before(third: bytes) -> None:
    check_outline(message({"id": "1", "task": TASK}, b'[[[]], {"version": 1}, ' + third + b"]"))


@pytest.mark.parametrize(
    "third",
    [b'{"callbacks": [{}]}', b'{"chain": [1]}', b'{"chord": {"task": "x"}}', b'{"is_eager": null}', b"[1]", b"7"],
)
def test_another_third_part_is_refused(third: bytes) -> None:
    body = b'[[[]], {"version": 1}, ' + third + b"]"
    with pytest.raises(Malformed) as refused:
        check_outline(message({"id": "1", "task": TASK}, body))
    assert refused.value.reason.kind == "calls-others"
    wrong = fault(message({"id": "1", "task": TASK}, body))
    assert wrong is not None
    assert wrong.kind == "calls-others"


@pytest.mark.parametrize("task", ["history.record_messages", "celery.chord_unlock", "celery.accumulate"])
def test_a_message_may_name_the_task_of_views_only(task: str) -> None:
    with pytest.raises(Malformed) as refused:
        check_outline(message({"id": "1", "task": task}))
    assert refused.value.reason.kind == "unknown-task"


def test_many_refused_events_share_dead_letters() -> None:
    _, refused = decode_each([{"no": number} for number in range(2_500)], 1)
    found = letters(refused, "root")
    assert [len(letter.events) for letter in found] == [1_000, 1_000, 500]
    assert [letter.id for letter in found] == [letter.id for letter in letters(refused, "root")]
    few = letters(refused[:3], "root")
    assert [letter.id for letter in few] == [id_of(one.event, "root") for one in refused[:3]]


def test_what_cannot_be_written_down_again_is_not_waited_for() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises((ValueError, RecursionError)):
        letters([Unstorable(endless, Reason("no-event", ""))], "root")
