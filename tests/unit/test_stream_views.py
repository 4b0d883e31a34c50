"""Clients that only stream: one `started` a viewer, video and hour."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from streaming_app.access.auth import Tokens
from streaming_app.recording.outbox import Outbox
from streaming_app.recording.publisher import Publisher
from streaming_app.recording.stream_views import StreamViews, started
from tests.fakes import RecordingLink
from tests.waiting import until
from view_events.event import event_id_time

SECRET = "a-secret-of-enough-length"
TOKENS = Tokens(SECRET)
KEY = b"key"
NOON = datetime(2026, 6, 1, 12, 30, tzinfo=UTC)


@pytest.fixture
def link() -> RecordingLink:
    return RecordingLink()


@pytest.fixture
def stream_views(link: RecordingLink, tmp_path: Path) -> Iterator[StreamViews]:
    publisher = Publisher(link, Outbox(tmp_path / "outbox", max_bytes=64 * 1024))
    publisher.start()
    until(lambda: publisher.connected, what="the publisher to connect")
    yield StreamViews(TOKENS, publisher, SECRET)
    publisher.stop()


def test_the_id_is_the_same_within_the_hour_and_another_after_it() -> None:
    event = started("alice", "clip-1", NOON, KEY)
    assert event.event_id.version == 7
    assert event_id_time(event.event_id) == NOON.replace(minute=0)
    assert started("alice", "clip-1", NOON + timedelta(minutes=29), KEY).event_id == event.event_id
    others = [
        started("alice", "clip-1", NOON + timedelta(minutes=30), KEY),
        started("bob", "clip-1", NOON, KEY),
        started("alice", "clip-2", NOON, KEY),
    ]
    assert len({event.event_id, event.playback_id, *(other.event_id for other in others)}) == 5


def test_who_only_knows_the_names_cannot_make_the_id() -> None:
    """Under the same id, recorded first, the view of somebody else would change nothing."""
    assert started("alice", "clip-1", NOON, b"one key").event_id != started("alice", "clip-1", NOON, b"other").event_id
    for unkeyed in (sha256(b"event\0alice\0clip-1").digest(), sha256(b"event\0alice\0clip-1" + KEY).digest()):
        assert started("alice", "clip-1", NOON, KEY).event_id.int & 0xFFFF != int.from_bytes(unkeyed[:10]) & 0xFFFF


def test_ranges_and_repeats_are_one_event(stream_views: StreamViews, link: RecordingLink) -> None:
    for _ in range(50):
        stream_views.note(f"Bearer {TOKENS.viewer('alice')}", "clip-1")
    stream_views.note(f"Bearer {TOKENS.viewer('bob')}", "clip-1")
    until(lambda: len(link.events) == 2, what="two events")
    assert [event.viewer_id for event in link.events] == ["alice", "bob"]


def test_what_the_broker_did_not_confirm_comes_through_the_outbox(
    stream_views: StreamViews, link: RecordingLink
) -> None:
    link.doubts, link.away = 1, True
    stream_views.note(f"Bearer {TOKENS.viewer('alice')}", "clip-1")
    until(lambda: not link.connected, what="the connection to go")
    link.away = False
    until(lambda: len(link.messages) == 2, what="the second try")


def test_what_nothing_could_take_is_noted_again(stream_views: StreamViews, link: RecordingLink) -> None:
    link.away = True
    until(lambda: not link.connected, what="the connection to go")
    viewers = [f"viewer-{number}" for number in range(1000)]  # more than the small outbox takes
    for viewer in viewers:
        stream_views.note(f"Bearer {TOKENS.viewer(viewer)}", "clip-1")
    link.away = False

    def all_noted() -> bool:
        for viewer in viewers:
            stream_views.note(f"Bearer {TOKENS.viewer(viewer)}", "clip-1")
        return len({event.viewer_id for event in link.events}) == len(viewers)

    until(all_noted, what="every viewer's start to arrive")


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer forged", f"Bearer {TOKENS.ingest()}", "Basic x"],
    ids=["none", "forged", "ingest", "basic"],
)
def test_it_never_raises(stream_views: StreamViews, link: RecordingLink, authorization: str) -> None:
    stream_views.note(authorization, "clip-1")
    assert not link.events
