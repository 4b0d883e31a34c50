"""A trace id travels from the request to the worker, and nobody who does not know of it minds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from structlog.testing import capture_logs

from service import tracing
from streaming_app import create_app
from streaming_app.access.auth import Caller, Tokens
from streaming_app.recording.outbox import Outbox
from streaming_app.recording.publisher import Publisher
from streaming_app.recording.request import View, check
from streaming_app.recording.stream_views import started
from streaming_app.settings import StreamingSettings
from tests.fakes import RecordingLink, an_event, ids
from tests.rsgi_client import RsgiApp, RsgiClient
from tests.waiting import until
from view_events.event import VERSION, ViewEvent, by_trace, decode, encode, trace_ids

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SECRET = "a-secret-of-enough-length"


class EarlierEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A view event as programs of the version before know it."""

    event_id: UUID
    viewer_id: str
    video_id: str
    playback_id: UUID
    kind: str
    position_s: float
    played_from_s: float | None = None
    at: datetime
    received_at: datetime


def earlier(event: ViewEvent) -> EarlierEvent:
    return EarlierEvent(**{name: getattr(event, name) for name in EarlierEvent.__struct_fields__})


# -- the header -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "traceparent",
    [
        f"00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-00",
        f" 00-{TRACE}-{PARENT}-01 ",
        f"01-{TRACE}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be-like",
    ],
)
def test_the_trace_of_the_client_goes_on(traceparent: str) -> None:
    assert tracing.trace_id(traceparent) == TRACE


@pytest.mark.parametrize(
    "traceparent",
    [
        None,
        "",
        TRACE,
        f"00-{TRACE}",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"01-{TRACE}-{PARENT}-01.more",
        f"ff-{TRACE}-{PARENT}-01",
        f"0x-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01, 00-{TRACE}-{PARENT}-01",
        "00-" + "\u0661" * 32 + f"-{PARENT}-01",
    ],
)
def test_anything_else_begins_a_new_trace(traceparent: str | None) -> None:
    made = {tracing.trace_id(traceparent) for _ in range(3)}
    assert len(made) == 3
    assert all(len(one) == 32 and int(one, 16) for one in made)
    assert TRACE not in made


@pytest.fixture
def client(tmp_path: Path) -> RsgiClient:
    settings = StreamingSettings(
        videos=tmp_path, cache=tmp_path / "cache", outbox=tmp_path / "outbox", secret_key=SECRET
    )
    return RsgiApp(create_app(settings)).client()


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (401, {"json": {}}),
        (415, {"data": "x", "auth": True}),
        (400, {"data": "{", "content_type": "application/json", "auth": True}),
        (422, {"json": {}, "auth": True}),
    ],
)
def test_every_answer_to_a_view_says_its_trace(client: RsgiClient, status: int, request_: dict[str, Any]) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    if request_.pop("auth", False):
        headers["Authorization"] = f"Bearer {Tokens(SECRET).viewer('alice')}"
    answer = client.post("/api/views", headers=headers, **request_)
    assert (answer.status_code, answer.headers["Trace-Id"]) == (status, TRACE)
    del headers["traceparent"]
    assert client.post("/api/views", headers=headers, **request_).headers["Trace-Id"] != TRACE
    assert "Trace-Id" not in client.get("/api/videos").headers


# -- the event --------------------------------------------------------------------------------------------


def test_every_event_of_a_request_gets_its_trace() -> None:
    views = [View(kind="started", video_id="clip-1", position_s=0) for _ in range(3)]
    events = check(views, Caller("alice"), datetime.now(UTC), lambda _: True, TRACE)
    assert trace_ids(events) == [TRACE]
    assert by_trace(events) == {TRACE: ids(events)}


def test_a_client_that_only_streams_begins_a_trace() -> None:
    made = started("alice", "clip-1", datetime.now(UTC), b"key").trace_id
    assert made
    assert len(made) == 32


def test_events_without_a_trace_are_told_too() -> None:
    events = [an_event(), an_event(trace_id=TRACE), an_event()]
    assert by_trace(events) == {"-": [ids(events)[0], ids(events)[2]], TRACE: [ids(events)[1]]}
    assert trace_ids(events) == [TRACE]


def test_an_event_without_a_trace_costs_nothing_on_its_way() -> None:
    (without,) = encode([an_event()])
    assert "trace_id" not in without
    (with_one,) = encode([an_event(trace_id=TRACE)])
    assert with_one["trace_id"] == TRACE


def test_the_version_before_reads_messages_of_this_one_and_the_other_way_round() -> None:
    assert VERSION == 1
    event = an_event(trace_id=TRACE, played_from_s=2.0)
    for sent in (event, an_event()):
        (read,) = msgspec.convert(encode([sent]), list[EarlierEvent], strict=False)
        assert read == earlier(sent)
    for sent in (event, an_event()):
        (read_back,) = decode([msgspec.to_builtins(earlier(sent))], VERSION)
        assert read_back == msgspec.structs.replace(sent, trace_id=None)


def test_the_version_before_reads_outboxes_of_this_one_and_the_other_way_round(tmp_path: Path) -> None:
    event = an_event(trace_id=TRACE)
    box = Outbox(tmp_path, 1024 * 1024)
    box.open()
    box.put([event]).result(5)
    message = box.oldest(10)
    assert message
    assert message.events == [event]
    (row,) = message.file.oldest(10)
    assert msgspec.json.decode(row[2], type=list[EarlierEvent]) == [earlier(event)]
    message.file.append([(1, msgspec.json.encode([earlier(event)]))])
    box.done(message)
    message = box.oldest(10)
    assert message
    assert message.events == [msgspec.structs.replace(event, trace_id=None)]
    box.close()


# -- the logs ---------------------------------------------------------------------------------------------


def test_a_message_is_one_line_that_names_its_task_and_its_views(tmp_path: Path) -> None:
    link = RecordingLink()
    publisher = Publisher(link, Outbox(tmp_path, 1024 * 1024))
    events = [an_event(trace_id=TRACE), an_event(trace_id=TRACE), an_event()]
    with capture_logs() as logs:
        publisher.start()
        until(lambda: publisher.connected, what="the publisher to connect")
        publisher.publish(events)
        publisher.stop()
    (line,) = [line for line in logs if line["event"] == "published"]
    assert line["log_level"] == "info"
    assert line["ms"] >= 0
    assert (line["events"], line["task_id"], line["from_outbox"]) == (3, "task-1", False)
    assert line["views"] == {TRACE: ids(events[:2]), "-": ids(events[2:])}


def test_what_goes_through_the_outbox_is_named_at_both_ends(tmp_path: Path) -> None:
    link = RecordingLink(away=True)
    outbox = Outbox(tmp_path, 1024 * 1024)
    publisher = Publisher(link, outbox)
    event = an_event(trace_id=TRACE)
    with capture_logs() as logs:
        publisher.start()
        publisher.publish([event])
        link.away = False
        until(lambda: link.messages and not outbox.events, what="the outbox to be empty")
        publisher.stop()
    stored, published = (line for line in logs if "views" in line)
    assert (stored["event"], stored["events"], stored["views"]) == ("stored in the outbox", 1, {TRACE: ids([event])})
    assert (published["event"], published["from_outbox"]) == ("published", True)
    assert published["views"] == {TRACE: ids([event])}
