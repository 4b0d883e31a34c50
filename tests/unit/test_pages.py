"""The pages as a browser gets them, before any script runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from streaming_app import create_app
from streaming_app.access.auth import COOKIE
from streaming_app.routes.pages import clock
from streaming_app.settings import StreamingSettings
from streaming_app.videos import catalogue, posters
from tests.clips import make_clip
from tests.rsgi_client import RsgiApp
from tests.waiting import until

PAGES = ["/", "/watch/good", "/history", "/watch/no-such-video", "/about"]
MARKUP = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """The start tags of a page, with their attributes."""

    def __init__(self, page: TestResponse) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    videos = tmp_path_factory.mktemp("videos")
    make_clip(videos / "good.mp4", title="A good one")
    make_clip(videos / "markup.mp4", title=MARKUP)
    (videos / "broken.mp4").write_bytes(b"no video")
    return videos


@pytest.fixture
def browser(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    monkeypatch.setattr(catalogue, "PATIENCE_S", 30.0)
    monkeypatch.setattr(posters, "WAIT_S", 30.0)
    app = create_app(StreamingSettings(videos=folder, cache=tmp_path))
    with app.test_client() as client:
        yield client


@pytest.mark.parametrize("path", PAGES)
def test_the_first_page_makes_a_cookie_and_the_next_keeps_it(browser: FlaskClient, path: str) -> None:
    first = browser.get(path)
    (cookie,) = first.headers.getlist("Set-Cookie")
    assert cookie.startswith(f"{COOKIE}=")
    attributes = {part.strip() for part in cookie.split(";")[1:]}
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= attributes
    assert "Secure" not in attributes, "the demo has no TLS"
    assert browser.get(path).headers.getlist("Set-Cookie") == []


def test_a_cookie_that_was_tampered_with_is_replaced(browser: FlaskClient) -> None:
    browser.set_cookie(COOKIE, "somebody-else")
    assert browser.get("/").headers.getlist("Set-Cookie")


def test_the_cookie_is_for_tls_only_where_the_page_came_over_tls(browser: FlaskClient) -> None:
    answer = browser.get("/", base_url="https://videos.lan")
    assert "Secure" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_allows_nothing_but_its_own(browser: FlaskClient, path: str) -> None:
    page = browser.get(path)
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Cache-Control"] == "no-store"
    for tag, attributes in Tags(page).found:
        assert "style" not in attributes, (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert tag != "script" or attributes["src"], "no inline script"
        for name in ("src", "href", "poster"):
            assert (attributes.get(name) or "/").startswith(("/", "#")), "everything comes from here"


@pytest.mark.parametrize("path", ["/", "/watch/markup", "/watch/good"])
def test_a_title_that_is_markup_stays_text(browser: FlaskClient, path: str) -> None:
    page = browser.get(path)
    assert MARKUP not in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text


def test_a_broken_file_is_listed_with_its_reason_and_not_linked(browser: FlaskClient) -> None:
    page = browser.get("/")
    assert "Cannot be played:" in page.text
    assert "/watch/broken" not in [attributes.get("href") for _, attributes in Tags(page).found]


@pytest.mark.parametrize(
    ("path", "words"),
    [("/watch/no-such-video", "No such video"), ("/watch/broken", "cannot be played"), ("/watch/..%5c..", "No such")],
)
def test_what_cannot_be_watched_is_a_404_that_a_person_can_read(browser: FlaskClient, path: str, words: str) -> None:
    page = browser.get(path)
    assert page.status_code == 404
    assert page.mimetype == "text/html"
    assert words in page.text


def test_the_player_has_its_video_and_the_servers_time(browser: FlaskClient) -> None:
    page = browser.get("/watch/good")
    (video,) = [attributes for tag, attributes in Tags(page).found if tag == "video"]
    assert video["src"] == "/videos/good/stream"
    assert "controls" in video
    assert any(attributes.get("name") == "server-time" for _, attributes in Tags(page).found)


def test_a_poster_is_a_jpeg_and_a_broken_file_has_none(browser: FlaskClient) -> None:
    poster = browser.get("/videos/good/poster")
    assert poster.mimetype == "image/jpeg"
    assert poster.data.startswith(b"\xff\xd8")
    assert "max-age=3600" in poster.headers["Cache-Control"]
    assert browser.get("/videos/good/poster", headers={"If-None-Match": poster.headers["ETag"]}).status_code == 304
    for video_id in ("broken", "no-such-video"):
        assert browser.get(f"/videos/{video_id}/poster").status_code == 404


def test_whoever_looks_for_a_favicon_finds_one(browser: FlaskClient) -> None:
    with browser.get("/favicon.ico") as icon:
        assert icon.mimetype == "image/svg+xml"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, ""), (0, "0:00"), (7.9, "0:07"), (754, "12:34"), (3723.4, "1:02:03")]
)
def test_a_length_reads_as_in_a_player(seconds: float | None, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize("accept", ["text/html,application/xhtml+xml,*/*;q=0.8", "text/html"])
@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/watch", 404), ("/videos/good/nothing", 404)])
def test_an_address_that_leads_nowhere_is_a_page_for_a_browser(
    browser: FlaskClient, path: str, status: int, accept: str
) -> None:
    answer = browser.get(path, headers={"Accept": accept})
    assert (answer.status_code, answer.mimetype) == (status, "text/html")
    assert "Open the library" in answer.text


@pytest.mark.parametrize("accept", ["*/*", "application/json", "", "application/problem+json, text/html;q=0.5"])
def test_and_a_problem_for_a_program(browser: FlaskClient, accept: str) -> None:
    answer = browser.get("/nowhere", headers={"Accept": accept})
    assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")


def test_paths_of_the_api_answer_with_problems_to_everybody(browser: FlaskClient) -> None:
    answer = browser.get("/api/nowhere", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")
    assert browser.delete("/api/views", headers={"Accept": "text/html"}).mimetype == "application/problem+json"


def test_every_page_leads_to_what_flixtrail_is(browser: FlaskClient) -> None:
    for path in PAGES:
        assert "/about" in [attributes.get("href") for _, attributes in Tags(browser.get(path)).found]
    page = browser.get("/about")
    assert "docs/lessons/README.md" in page.text
    assert not any((attributes.get("href") or "").startswith("http") for _, attributes in Tags(page).found)


def test_the_pages_of_the_broker_are_linked_where_their_addresses_are_set(folder: Path, tmp_path: Path) -> None:
    pages = {"flower_page": "http://127.0.0.1:5555", "rabbitmq_page": "http://127.0.0.1:15672"}
    client = create_app(StreamingSettings(videos=folder, cache=tmp_path, **pages)).test_client()  # type: ignore[arg-type]
    links = [attributes.get("href") for _, attributes in Tags(client.get("/about")).found]
    assert set(pages.values()) <= set(links)


@pytest.mark.parametrize("wrong", ["javascript:alert(1)", "127.0.0.1:5555", "http://user:password@host/", "http://"])
def test_an_address_for_all_to_see_has_no_password_and_is_http(wrong: str) -> None:
    with pytest.raises(ValueError, match="flower_page"):
        StreamingSettings(flower_page=wrong)


def test_an_empty_and_an_unreadable_folder_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "FRESH_S", 0.0)
    videos = tmp_path / "my videos"
    videos.mkdir()
    client = create_app(StreamingSettings(videos=videos, cache=tmp_path)).test_client()
    page = client.get("/").text
    assert f"<code>{videos}</code> has no videos in it" in page
    videos.rmdir()
    page = client.get("/").text
    assert f"<code>{videos}</code> cannot be read: No such file or directory" in page
    videos.mkdir()
    behind = create_app(StreamingSettings(videos=videos, cache=tmp_path, behind_proxy=True))
    assert str(tmp_path) not in behind.test_client().get("/").text


def test_videos_of_one_title_are_told_apart_by_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "PATIENCE_S", 30.0)
    for name, frames in (("Season 1/Pilot.mp4", 5), ("Season 2/Pilot.mp4", 9), ("Other.mp4", 7)):
        make_clip(tmp_path / "videos" / name, frames=frames)
    client = create_app(StreamingSettings(videos=tmp_path / "videos", cache=tmp_path)).test_client()
    page = client.get("/").text
    assert page.count('class="place"') == 2
    assert ">Season 1</p>" in page
    assert ">Season 2</p>" in page


def test_it_is_not_ready_before_the_folder_was_looked_at(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "PATIENCE_S", 0.1)
    gate, listed = threading.Event(), catalogue._files  # noqa: SLF001

    def slow(*args: Any) -> Any:
        gate.wait(30)
        return listed(*args)

    monkeypatch.setattr(catalogue, "_files", slow)
    app = create_app(StreamingSettings(videos=folder, cache=tmp_path))
    parts = app.extensions["flixtrail"]
    client = RsgiApp(app).client()
    client.get("/")
    assert "for the first time" in client.get("/readyz").get_json()["detail"]
    token = {"Authorization": f"Bearer {parts.tokens.viewer('alice')}"}
    view = {"kind": "started", "video_id": "good", "position_s": 0}
    answer = client.post("/api/views", json=view, headers=token)
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert len(answer.get_json()["event_ids"]) == 1
    gate.set()
    until(lambda: parts.catalogue.has_scanned, what="the first scan")
    monkeypatch.setattr(catalogue, "PATIENCE_S", 30.0)
    assert parts.catalogue.knows("good")
    assert client.post("/api/views", json={**view, "video_id": "nope"}, headers=token).status_code == 422
