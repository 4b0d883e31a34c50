"""As a user does it: read a clip with a real demuxer, report views, find them in the history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import av
import pytest

from tests.client import Client, a_view
from tests.conftest import Demo
from tests.waiting import until


@pytest.fixture(scope="module", params=[pytest.param("rabbitmq", marks=pytest.mark.rabbitmq), "embedded"])
def demo(request: pytest.FixtureRequest) -> Demo:
    found: Demo = request.getfixturevalue(f"{request.param}_demo")
    return found


def test_a_clip_is_watched_and_found_in_the_history(demo: Demo) -> None:
    viewer = f"alice-{uuid4()}"
    client = Client(demo.url, demo.token(viewer))
    video = client.get("/api/videos").json()["videos"][0]

    # PyAV's demuxer opens the URL itself and asks for ranges as a player does.
    with av.open(demo.url + video["stream_url"] + "?playback=1") as container:
        frames = sum(1 for packet in container.demux(video=0) if packet.size)
        assert frames > 100
        assert container.duration is not None
        assert abs(container.duration / av.time_base - video["duration_s"]) < 0.1
        container.seek(int(5 * av.time_base))
        assert next(container.decode(video=0)).time == pytest.approx(5, abs=2.5)

    playback_id, began = str(uuid4()), datetime.now(UTC) - timedelta(seconds=30)
    position, views = 0.0, []
    for kind, until_s in (("started", 0.0), ("progress", 10.0), ("progress", 12.5)):
        views.append(
            a_view(
                kind=kind,
                video_id=video["id"],
                playback_id=playback_id,
                position_s=until_s,
                played_from_s=position,
                at=(began + timedelta(seconds=until_s)).isoformat(),
            )
        )
        position = until_s
    ids = client.record(views)
    assert ids == [view["event_id"] for view in views]
    assert client.record(views) == ids  # again: accepted, and nothing changes

    def all_of_it() -> bool:
        return any(item["watched_s"] == 12.5 for item in client.history())

    until(all_of_it, timeout_s=20, what="the history to show the playback")
    (item,) = client.history()
    assert item["playback_id"] == playback_id
    assert item["video_id"] == video["id"]
    assert item["title"] == video["title"]
    assert item["position_s"] == 12.5
    assert item["watched_s"] == 12.5
    assert item["finished"] is False
    assert datetime.fromisoformat(item["started_at"]) == datetime.fromisoformat(views[0]["at"])


def test_a_client_that_only_streams_is_recorded_once_an_hour(demo: Demo) -> None:
    viewer = f"streamer-{uuid4()}"
    client = Client(demo.url, demo.token(viewer))
    url = client.get("/api/videos").json()["videos"][0]["stream_url"]
    for begin in range(0, 5000, 1000):
        answer = client.get(url, headers={"Range": f"bytes={begin}-{begin + 999}"})
        assert answer.status == 206
        assert len(answer.data) == 1000
    until(client.history, timeout_s=20, what="the stream to be recorded")
    (item,) = client.history()
    assert item["position_s"] == 0


def test_a_page_that_reports_itself_is_not_recorded_by_its_stream(demo: Demo) -> None:
    viewer = f"page-{uuid4()}"
    client = Client(demo.url, demo.token(viewer))
    url = client.get("/api/videos").json()["videos"][0]["stream_url"]
    assert client.get(f"{url}?playback=1", headers={"Range": "bytes=0-99"}).status == 206
    # Something recorded later has come through: what was sent before it would have, too.
    client.record([a_view(position_s=33.0)])
    until(client.history, timeout_s=20, what="the later view")
    assert [item["position_s"] for item in client.history()] == [33.0]


def test_nobody_sees_another_viewers_history(demo: Demo) -> None:
    alice, bob = (Client(demo.url, demo.token(f"{name}-{uuid4()}")) for name in ("alice", "bob"))
    playback_id = str(uuid4())
    alice.record([a_view(playback_id=playback_id)])
    until(alice.history, timeout_s=20, what="alice's history")
    bob.record([a_view(playback_id=playback_id, position_s=99.0)])
    until(bob.history, timeout_s=20, what="bob's history")
    assert [item["position_s"] for item in alice.history()] == [10.0]
    assert [item["position_s"] for item in bob.history()] == [99.0]


def test_the_history_comes_in_pages(demo: Demo) -> None:
    client = Client(demo.url, demo.token(f"pages-{uuid4()}"))
    client.record([a_view() for _ in range(25)])
    until(lambda: len(client.history(limit="100")) == 25, timeout_s=20, what="25 playbacks")
    seen: list[str] = []
    fields = {"limit": "10"}
    while True:
        page = client.get("/api/history", None, **fields).json()
        seen += [item["playback_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        fields["cursor"] = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 25
