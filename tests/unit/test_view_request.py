"""What is accepted at the edge, and what is refused with which words."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_app.access.auth import AuthError, Caller
from streaming_app.recording.errors import FieldError, NotJson, Unprocessable
from streaming_app.recording.request import MAX_EVENTS, View, check, decode
from streaming_app.recording.stream_views import derived_id
from view_events.event import RETENTION, ViewEvent, event_id_time, new_event_id

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ALICE = Caller("alice")
INGEST = Caller(None, ingest=True)
SECOND = timedelta(seconds=1)


def view(**fields: Any) -> dict[str, Any]:
    return {"kind": "progress", "video_id": "clip-1", "position_s": 12.5, **fields}


def accept(*views: dict[str, Any], caller: Caller = ALICE, now: datetime = NOW) -> list[ViewEvent]:
    return check(decode(json.dumps(views).encode()), caller, now, known={"clip-1", "clip-2"}.__contains__)


def refuse(*views: Any, caller: Caller = ALICE, now: datetime = NOW) -> list[tuple[int | None, str | None]]:
    with pytest.raises(Unprocessable) as refused:
        accept(*views, caller=caller, now=now)
    assert all(error.message for error in refused.value.errors)
    return [(error.index, error.field) for error in refused.value.errors]


def an_id(when: datetime) -> str:
    return str(derived_id(when, "test", key=b"test"))


def test_an_object_an_array_and_lines_say_the_same() -> None:
    body = json.dumps(view()).encode()
    array = b"[" + body + b", " + body + b"]"
    assert decode(body)[0] == decode(array)[0] == decode(body + b"\n\n" + body + b"\n", lines=True)[1]
    assert len(decode(array)) == 2


def test_what_the_client_leaves_out_is_made_here() -> None:
    (event,) = accept(view())
    assert event.event_id.version == 7
    assert event.playback_id.version == 4
    assert event.at == event.received_at == NOW
    assert event.viewer_id == "alice"


def test_each_field_that_a_client_sends_reaches_the_event() -> None:
    """Somebody who adds a field to `View` adds it here, and finds out whether `_event` hands it on."""
    sent = view(
        event_id=an_id(NOW),
        playback_id=str(uuid4()),
        played_from_s=2.5,
        at="2026-06-01T11:59:00Z",
        sent_at="2026-06-01T12:00:00Z",
        viewer_id="bob",
    )
    assert sent.keys() == {*View.__struct_fields__}
    (event,) = accept(sent, caller=INGEST)
    del sent["sent_at"]  # it only corrects `at`
    arrived = msgspec.to_builtins(event)
    assert {name: arrived.get(name) for name in sent} == sent


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nope", b"\xff\xfe", b'{"kind": "progress"', b'{"position_s": NaN}', b"[" * 100_000, b'{"a":' * 9000],
)
def test_no_json_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(NotJson):
        decode(body)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"kind": "paused"}, "kind"),
        ({"kind": None}, "kind"),
        ({"video_id": "../../etc/passwd"}, "video_id"),
        ({"video_id": "clip-1\n"}, "video_id"),
        ({"video_id": ""}, "video_id"),
        ({"video_id": "x" * 129}, "video_id"),
        ({"video_id": 7}, "video_id"),
        ({"position_s": -0.1}, "position_s"),
        ({"position_s": 604_800.1}, "position_s"),
        ({"position_s": 10**400}, "position_s"),
        ({"position_s": "12"}, "position_s"),
        ({"position_s": True}, "position_s"),
        ({"position_s": None}, "position_s"),
        ({"played_from_s": -1}, "played_from_s"),
        ({"event_id": "not-a-uuid"}, "event_id"),
        ({"event_id": 5}, "event_id"),
        ({"playback_id": "x"}, "playback_id"),
        ({"at": "yesterday"}, "at"),
        ({"at": "2026-06-01T12:00:00"}, "at"),
        ({"at": 1780000000}, "at"),
        ({"sent_at": "2026-13-01T12:00:00Z"}, "sent_at"),
        ({"viewer_id": ""}, "viewer_id"),
        ({"viewer_id": "a\u0000b"}, "viewer_id"),
        ({"viewer_id": "x" * 129}, "viewer_id"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], field: str) -> None:
    assert refuse(view(), view(**fields), caller=INGEST) == [(1, field)]


def test_every_bad_field_of_every_event_is_named() -> None:
    assert refuse({"kind": "x", "position_s": -1}, view(), "nothing", view(video_id="/")) == [
        (0, "kind"),
        (0, "video_id"),
        (0, "position_s"),
        (2, None),
        (3, "video_id"),
    ]


def test_a_lone_surrogate_is_refused() -> None:
    body = b'{"kind": "progress", "video_id": "clip-1", "position_s": 1, "viewer_id": "\\ud800"}'
    with pytest.raises((NotJson, Unprocessable)):
        decode(body)


@pytest.mark.parametrize("count", [0, MAX_EVENTS + 1])
def test_a_request_has_one_to_a_thousand_events(count: int) -> None:
    assert refuse(*[view()] * count) == [(None, None)]


def test_a_thousand_events_are_accepted() -> None:
    assert len(accept(*[view()] * MAX_EVENTS)) == MAX_EVENTS


def test_a_video_that_is_not_in_the_catalogue_is_refused() -> None:
    assert refuse(view(video_id="clip-9"), view(), view(video_id="clip-8")) == [(0, "video_id"), (2, "video_id")]


def test_an_interval_ends_after_it_begins() -> None:
    assert refuse(view(position_s=5, played_from_s=5.1)) == [(0, "played_from_s")]
    assert accept(view(position_s=5, played_from_s=5))[0].played_from_s == 5


def test_the_time_in_an_id_lies_between_retention_and_tomorrow() -> None:
    day = timedelta(hours=24)
    assert refuse(view(event_id=an_id(NOW + day + SECOND))) == [(0, "event_id")]
    assert refuse(view(event_id=an_id(NOW - RETENTION - SECOND))) == [(0, "event_id")]
    assert refuse(view(event_id="ffffffff-ffff-7fff-bfff-ffffffffffff")) == [(0, "event_id")]
    assert refuse(view(event_id=str(uuid4()))) == [(0, "event_id")]
    assert len(accept(view(event_id=an_id(NOW + day - SECOND)), view(event_id=an_id(NOW - RETENTION + SECOND)))) == 2


def test_an_id_twice_in_one_request_is_refused() -> None:
    event_id = an_id(NOW)
    assert refuse(view(event_id=event_id), view(), view(event_id=event_id.upper())) == [(2, "event_id")]


def test_nobody_records_for_another_viewer() -> None:
    with pytest.raises(AuthError) as refused:
        accept(view(viewer_id="bob"))
    assert refused.value.status == 403
    assert accept(view(viewer_id="alice"))[0].viewer_id == "alice"


def test_an_ingest_token_names_the_viewer_of_each_event() -> None:
    assert refuse(view(viewer_id="bob"), view(), caller=INGEST) == [(1, "viewer_id")]
    assert accept(view(viewer_id="bob"), caller=INGEST)[0].viewer_id == "bob"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"at": "2026-06-01T11:00:00Z"}, NOW - timedelta(hours=1)),
        ({"at": "2026-06-01T13:00:00+02:00"}, NOW - timedelta(hours=1)),
        ({"at": "2027-01-01T00:00:00Z"}, NOW),  # later than the server's clock: now
        ({"at": "2026-06-01T10:59:00Z", "sent_at": "2026-06-01T11:00:00Z"}, NOW - timedelta(minutes=1)),  # an hour slow
        ({"at": "2026-06-01T12:59:00Z", "sent_at": "2026-06-01T13:00:00Z"}, NOW - timedelta(minutes=1)),  # an hour fast
        ({"at": "0001-01-01T00:00:00+23:00"}, NOW),  # no datetime can hold it in UTC
        ({"at": "0001-01-01T00:00:00Z", "sent_at": "9999-12-31T23:59:59Z"}, NOW),
    ],
)
def test_the_time_of_an_event_is_by_the_servers_clock(fields: dict[str, str], expected: datetime) -> None:
    assert accept(view(**fields))[0].at == expected


def test_an_id_carries_its_time() -> None:
    made = event_id_time(new_event_id())
    assert made is not None
    assert abs(made - datetime.now(UTC)) < SECOND


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
fields_of_a_view = st.fixed_dictionaries(
    {},
    optional={
        name: anything | st.sampled_from(["progress", "clip-1", 3, str(uuid4())]) for name in View.__struct_fields__
    },
)


@given(st.lists(fields_of_a_view | anything, max_size=4))
def test_the_fast_look_and_the_thorough_one_agree(documents: list[Any]) -> None:
    """A request is refused with at least one named fault, or accepted: never both, never a crash."""
    try:
        events = accept(*documents)
    except Unprocessable as refused:
        assert refused.errors
        assert all(isinstance(error, FieldError) and error.message for error in refused.errors)
    except AuthError:
        pass
    else:
        assert len(events) == len(documents)


@given(st.binary(max_size=60))
def test_no_bytes_crash_the_decoder(body: bytes) -> None:
    for lines in (False, True):
        try:
            decode(body, lines=lines)
        except (NotJson, Unprocessable):
            continue


def test_the_event_survives_the_message() -> None:
    from view_events.event import decode as read
    from view_events.event import encode

    (event,) = accept(view(event_id=an_id(NOW), played_from_s=2))
    assert read(msgspec.json.decode(msgspec.json.encode(encode([event]))), version=1) == [event]
    assert isinstance(event.event_id, UUID)


def test_a_position_far_behind_the_end_becomes_the_end() -> None:
    views = [
        {"kind": "progress", "video_id": "clip-1", "position_s": position, "played_from_s": since}
        for position, since in [(604_800, 604_000), (100, 90), (15.5, 0)]
    ]
    decoded = decode(json.dumps(views).encode())
    found = check(decoded, ALICE, NOW, {"clip-1"}.__contains__, duration_s=lambda _video_id: 15.0)
    assert [(event.position_s, event.played_from_s) for event in found] == [(3_615.0, 3_615.0), (100, 90), (15.5, 0)]
    assert check(decoded, ALICE, NOW, {"clip-1"}.__contains__)[0].position_s == 604_800
