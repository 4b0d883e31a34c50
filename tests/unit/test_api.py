"""What the streaming app answers about the history: to its viewer only, and never with an error of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from streaming_app import create_app
from streaming_app.history_client import HistoryAway, HistoryClient, Refused, TooManyRequests
from streaming_app.settings import StreamingSettings
from tests.clips import make_clip

UUID = "01a20e06-6f35-76ed-9999-883561ad754b"


class History(HistoryClient):
    """A history API that answers as told."""

    def __init__(self, fault: Exception | None = None) -> None:
        super().__init__("http://nobody.invalid", "unused")
        self.fault = fault
        self.asked: list[str] = []

    def _ask(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        del method, path
        if self.fault:
            raise self.fault
        self.asked = arguments.get("json", {}).get("event_ids", [])
        return {"items": [], "next_cursor": None}


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
def browser(tmp_path: Path, history: History) -> Iterator[FlaskClient]:
    make_clip(tmp_path / "videos" / "good.mp4")
    app = create_app(StreamingSettings(videos=tmp_path / "videos", cache=tmp_path))
    app.extensions["flixtrail"] = replace(app.extensions["flixtrail"], history=history)
    with app.test_client() as client:
        yield client


@pytest.fixture
def ingest(browser: FlaskClient) -> dict[str, str]:
    token = browser.application.extensions["flixtrail"].tokens.ingest()
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("fault", [None, HistoryAway(), TooManyRequests(), Refused("no such cursor")])
def test_no_cache_keeps_a_history_or_gives_it_to_another_viewer(
    browser: FlaskClient, history: History, fault: Exception | None
) -> None:
    browser.get("/about")  # for a cookie
    history.fault = fault
    for answer in (browser.get("/api/history"), browser.application.test_client().get("/api/history")):
        assert answer.headers["Cache-Control"] == "no-store"
        assert {"cookie", "authorization"} <= {name.lower() for name in answer.vary}


def test_a_viewer_who_asks_for_too_much_is_told_when_to_ask_again(browser: FlaskClient, history: History) -> None:
    browser.get("/about")
    history.fault = TooManyRequests()
    answer = browser.get("/api/history")
    assert (answer.status_code, answer.mimetype) == (429, "application/problem+json")
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"event_ids": ' + b"[" * 100_000,
        b'{"event_ids": ["\\ud800"]}',
        b'{"event_ids": ["\xff"]}',
        b'{"event_ids": [1]}',
        b'{"event_ids": ["x"]}',
    ],
)
def test_receipts_of_nonsense_are_refused(browser: FlaskClient, ingest: dict[str, str], body: bytes) -> None:
    answer = browser.post("/api/views/receipts", data=body, headers=ingest, content_type="application/json")
    assert (answer.status_code, answer.mimetype) == (422, "application/problem+json")


def test_receipts_are_asked_for_as_they_were_sent(
    browser: FlaskClient, history: History, ingest: dict[str, str]
) -> None:
    assert browser.post("/api/views/receipts", json={"event_ids": [UUID]}, headers=ingest).status_code == 200
    assert history.asked == [UUID]
