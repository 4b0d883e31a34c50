"""A page asks the app whether its views would be recorded, as a browser does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from streaming_app import create_app
from streaming_app.access.auth import PLAIN_COOKIE
from streaming_app.settings import StreamingSettings
from tests.clips import sparse

#: What a browser on a page of http://nas:8080 sends, through a proxy that made `localhost` of its Host.
BEHIND_A_PROXY = {"Origin": "http://nas:8080"}


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[FlaskClient]:
    sparse(tmp_path / "a.mp4", 0)
    app = create_app(StreamingSettings(videos=tmp_path, cache=tmp_path / "cache"))
    with app.test_client() as client:
        yield client


def token_of(page: str) -> str:
    found = re.search(r'<meta name="page-token" content="([0-9a-f]+)">', page)
    assert found
    return found[1]


def test_a_page_learns_when_it_starts_that_its_views_would_be_recorded(browser: FlaskClient) -> None:
    token = token_of(browser.get("/").text)
    answer = browser.post("/api/views/check", headers={**BEHIND_A_PROXY, "Page-Token": token})
    assert (answer.status_code, answer.data) == (204, b"")
    assert browser.post(f"/api/views/check?page_token={token}", headers=BEHIND_A_PROXY).status_code == 204


def test_a_page_learns_when_it_starts_that_they_would_not_and_why(browser: FlaskClient) -> None:
    assert browser.post("/api/views/check").status_code == 401
    browser.get("/")
    answer = browser.post("/api/views/check", headers=BEHIND_A_PROXY)
    assert answer.status_code == 403
    assert answer.mimetype == "application/problem+json"
    assert "proxy" in answer.get_json()["detail"]


def test_a_page_that_was_opened_under_another_cookie_gets_the_token_of_this_one(browser: FlaskClient) -> None:
    old = token_of(browser.get("/").text)
    browser.delete_cookie("flixtrail_viewer")
    browser.get("/")
    assert browser.post("/api/views/check", headers={**BEHIND_A_PROXY, "Page-Token": old}).status_code == 403
    answer = browser.get("/api/page")
    assert answer.cache_control.no_store
    headers = {**BEHIND_A_PROXY, "Page-Token": answer.get_json()["page_token"]}
    assert browser.post("/api/views/check", headers=headers).status_code == 204


def test_a_page_whose_cookie_did_not_come_back_gets_one_of_another_name(browser: FlaskClient) -> None:
    token = browser.get("/api/page").get_json()["page_token"]
    assert browser.get_cookie(PLAIN_COOKIE)
    assert browser.get("/").headers.getlist("Set-Cookie") == []
    assert browser.post("/api/views/check", headers={**BEHIND_A_PROXY, "Page-Token": token}).status_code == 204
