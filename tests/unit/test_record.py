"""`POST /api/views`: when its answer is known, and from which thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from streaming_app import create_app
from streaming_app.access.auth import Tokens
from streaming_app.recording.errors import NotAccepted
from streaming_app.recording.outbox import Outbox
from streaming_app.recording.publisher import Publisher
from streaming_app.rsgi import ON_LOOP_BODY_BYTES
from streaming_app.settings import StreamingSettings
from streaming_app.videos import catalogue
from tests.clips import sparse
from tests.fakes import RecordingLink, ids
from tests.rsgi_client import RsgiApp
from tests.waiting import until

SECRET = "a-secret-of-enough-length"
TOKEN = {"Authorization": f"Bearer {Tokens(SECRET).viewer('alice')}"}
VIEW = {"kind": "progress", "video_id": "clip-1", "position_s": 1}


class Site:
    """An app with a broker that does as told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sparse(folder / "clip-1.mp4", 0)
        self.link = RecordingLink()
        self.publisher = Publisher(self.link, Outbox(folder / "outbox", max_bytes=1024 * 1024))
        self.flask: Flask = create_app(StreamingSettings(videos=folder, cache=folder / "cache", secret_key=SECRET))
        self.flask.extensions["flixtrail"] = replace(self.flask.extensions["flixtrail"], publisher=self.publisher)
        self.catalogue: catalogue.Catalogue = self.flask.extensions["flixtrail"].catalogue
        self.catalogue.videos()
        self.publisher.start()
        until(lambda: self.publisher.connected, what="the publisher")
        self._client = RsgiApp(self.flask).client()

    def post(self, *views: dict[str, Any]) -> Any:
        return self._client.post("/api/views", json=list(views), headers=TOKEN)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.publisher.stop()


@pytest.fixture
def checked_in(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which methods of the catalogue checked the videos: `knows_nowait` for the event loop, `knows` for threads."""
    called: list[str] = []

    def noted(name: str) -> Callable[[str], bool | None]:
        real = getattr(site.catalogue, name)

        def knows(video_id: str) -> bool | None:
            called.append(name)
            return real(video_id)  # type: ignore[no-any-return]

        return knows

    methods = {name: noted(name) for name in ("knows", "knows_nowait")}
    for name, method in methods.items():
        monkeypatch.setattr(site.catalogue, name, method)
    return called


def test_a_small_request_is_answered_without_a_thread(site: Site, checked_in: list[str]) -> None:
    answer = site.post(VIEW)
    assert (answer.status_code, answer.get_json()["accepted"]) == (202, 1)
    assert answer.get_json()["event_ids"] == ids(site.link.events)
    assert answer.headers["Trace-Id"] == site.link.events[0].trace_id
    assert checked_in == ["knows_nowait"]


def test_a_large_request_is_answered_from_a_thread(site: Site, checked_in: list[str]) -> None:
    views = [{**VIEW, "viewer_id": "alice"}] * (ON_LOOP_BODY_BYTES // 50)
    assert site.post(*views).status_code == 202
    assert len(site.link.events) == len(views)
    assert checked_in[0] == "knows"


def test_a_new_video_is_looked_for_in_a_thread(
    site: Site, checked_in: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "FRESH_ON_MISS_S", 0.0)
    monkeypatch.setattr(catalogue, "PATIENCE_S", 30.0)
    sparse(site.folder / "new.mp4", 0)
    assert site.post({**VIEW, "video_id": "new"}).status_code == 202
    assert checked_in[:2] == ["knows_nowait", "knows"]
    assert [event.video_id for event in site.link.events] == ["new"]


def test_views_that_were_not_accepted_are_answered_with_503_and_their_ids(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_events: object) -> Future[None]:
        safe: Future[None] = Future()
        threading.Timer(0.05, safe.set_exception, [NotAccepted("told to")]).start()
        return safe

    monkeypatch.setattr(site.publisher, "submit", refuses)
    answer = site.post(VIEW, VIEW)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Trace-Id"]
    assert len(answer.get_json()["event_ids"]) == 2
    assert "told to" in answer.get_json()["detail"]
