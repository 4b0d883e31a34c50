"""The stream route, as plain Flask serves it and as the RSGI application does: the same answers from both."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest
from werkzeug.datastructures import Headers

from streaming_app import create_app, rsgi, wsgi
from streaming_app.dependencies import Services
from streaming_app.recording.stream_views import StreamViews
from streaming_app.settings import StreamingSettings
from streaming_app.videos import catalogue
from tests.clips import make_clip

SETTINGS = {"secret_key": "a-secret-of-enough-length"}
RANGE = {"range": "bytes=10-19"}
TOKEN = {"authorization": "Bearer x"}


class Notes:
    """Remembers who was noted to stream what."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str]] = []

    def note(self, authorization: str, video_id: str) -> None:
        self.noted.append((authorization, video_id))


@dataclass
class Scope:
    method: str
    path: str
    query_string: str = ""
    headers: Headers = field(default_factory=Headers)
    server: str = "127.0.0.1:8000"
    client: str = "127.0.0.1:50000"
    scheme: str = "http"
    http_version: str = "1.1"


class Proto:
    """Takes what granian's protocol object would send."""

    status = 0
    body = b""

    def _head(self, status: int, headers: list[tuple[str, str]]) -> None:
        assert not self.status, "answered twice"
        self.status, self.headers = int(status), Headers(headers)

    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None:
        self._head(status, headers)

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self._head(status, headers)
        self.body = body

    def response_file_range(self, status: int, headers: list[tuple[str, str]], file: str, start: int, end: int) -> None:
        assert start < end  # granian refuses anything else
        self._head(status, headers)
        self.body = Path(file).read_bytes()[start:end]


@dataclass
class Answer:
    status: int
    headers: Headers
    body: bytes


class Site:
    """Asks both, and sees that they say the same."""

    def __init__(self, folder: Path, *, behind_proxy: bool = False) -> None:
        self.videos = folder / "videos"
        self.settings = StreamingSettings(
            cache=folder / "cache",
            videos=self.videos,
            behind_proxy=behind_proxy,
            **SETTINGS,  # type: ignore[arg-type]
        )
        self.flask = create_app(self.settings)
        services: Services = self.flask.extensions["flixtrail"]
        self.notes = Notes()
        self.services = replace(services, stream_views=cast(StreamViews, self.notes))
        self.flask.extensions["flixtrail"] = self.services

    def from_flask(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        answer = self.flask.test_client().open(path, method=method, headers=headers)
        return Answer(answer.status_code, answer.headers, answer.data)

    def from_rsgi(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        proto = Proto()
        # In a thread of its own: a browser test before this one leaves an event loop in ours.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(lambda: asyncio.run(self._ask(method, path, headers, proto))).result()
        return Answer(proto.status, proto.headers, proto.body)

    async def _ask(self, method: str, path: str, headers: dict[str, str], proto: Proto) -> None:
        app = rsgi.App(self.settings)
        app.adopt(self.flask, asyncio.get_running_loop())
        path, _, query = path.partition("?")
        await app.__rsgi__(
            cast(Any, Scope(method, path, query, Headers({"host": "localhost", **headers}))), cast(Any, proto)
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    make_clip(tmp_path / "videos" / "clip-1.mp4")
    (tmp_path / "videos" / "empty.mp4").touch()
    site = Site(tmp_path)
    site.services.catalogue.videos()
    return site


def plain(headers: Headers) -> list[tuple[str, str]]:
    return sorted((name.lower(), value) for name, value in headers)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/videos/clip-1/stream", {}, 200),
        ("/videos/clip-1/stream", {"range": "bytes=10-"}, 206),
        ("/videos/clip-1/stream", {"range": "bytes=-10"}, 206),
        ("/videos/clip-1/stream", {"range": "bytes=99999999-"}, 416),
        ("/videos/clip-1/stream", {"if-none-match": "*"}, 304),
        ("/videos/clip-1/stream", {"if-match": '"x"'}, 412),
        ("/videos/empty/stream", {}, 200),
        ("/videos/nobody/stream", {}, 404),
    ],
)
def test_both_give_the_same_answer(site: Site, method: str, path: str, headers: dict[str, str], status: int) -> None:
    if method == "HEAD" and "range" in headers:
        status = 200
    flask, granian = site.from_flask(method, path, headers), site.from_rsgi(method, path, headers)
    assert (flask.status, granian.status) == (status, status)
    if status >= 400:
        # To HEAD granian sends the headers alone.
        assert json.loads(granian.body)["status"] == status
        assert method == "HEAD" or json.loads(flask.body) == json.loads(granian.body)
    else:
        assert flask.body == granian.body
    assert plain(flask.headers) == plain(granian.headers)
    if method == "GET" and status < 300:
        assert len(flask.body) == int(flask.headers["Content-Length"])


@pytest.mark.parametrize("ask", [Site.from_flask, Site.from_rsgi])
def test_who_streams_with_a_token_and_without_a_page_is_noted(site: Site, ask: Any) -> None:
    ask(site, "GET", "/videos/clip-1/stream", {**RANGE, **TOKEN})
    assert site.notes.noted == [("Bearer x", "clip-1")]


@pytest.mark.parametrize("ask", [Site.from_flask, Site.from_rsgi])
@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/videos/clip-1/stream", {}),  # nobody in particular
        ("GET", "/videos/clip-1/stream?playback=1", TOKEN),  # a page reports by itself
        ("HEAD", "/videos/clip-1/stream", TOKEN),
        ("GET", "/videos/clip-1/stream", {"if-none-match": "*", **TOKEN}),
        ("GET", "/videos/clip-1/stream", {"range": "bytes=99999999-", **TOKEN}),
        ("GET", "/videos/nobody/stream", TOKEN),
    ],
)
def test_others_are_not(site: Site, ask: Any, method: str, path: str, headers: dict[str, str]) -> None:
    ask(site, method, path, headers)
    assert site.notes.noted == []


@pytest.mark.parametrize("ask", [Site.from_flask, Site.from_rsgi])
def test_a_file_that_is_gone_is_404_though_the_catalogue_has_it_still(site: Site, ask: Any) -> None:
    (site.videos / "clip-1.mp4").unlink()
    assert site.services.catalogue.at_hand("clip-1")
    assert ask(site, "GET", "/videos/clip-1/stream", {}).status == 404


@pytest.mark.parametrize("ask", [Site.from_flask, Site.from_rsgi])
def test_a_file_that_was_replaced_is_served_as_it_is_now(site: Site, ask: Any) -> None:
    before = ask(site, "GET", "/videos/clip-1/stream", {})
    (site.videos / "clip-1.mp4").write_bytes(b"shorter")
    after = ask(site, "GET", "/videos/clip-1/stream", {"range": "bytes=2-", "if-range": before.headers["etag"]})
    assert (after.status, after.body) == (200, b"shorter")


def test_a_video_that_this_process_has_not_seen_yet_is_not_sent_by_way_of_flask(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Flask's answers are collected in memory, and a video does not fit there.
    monkeypatch.setattr(wsgi, "run", None)
    monkeypatch.setattr(catalogue, "FRESH_ON_MISS_S", 0.0)
    new = make_clip(site.videos / "new.mp4")
    assert site.services.catalogue.at_hand("new") is None
    assert site.from_rsgi("GET", "/videos/new/stream", {}).body == new.read_bytes()


@pytest.fixture
def behind_proxy(tmp_path: Path) -> Site:
    make_clip(tmp_path / "videos" / "100% père?.mp4")
    site = Site(tmp_path, behind_proxy=True)
    site.services.catalogue.videos()
    return site


@pytest.mark.parametrize("ask", [Site.from_flask, Site.from_rsgi])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "headers",
    # The tags are the proxy's, and so are the answers to them.
    [{}, RANGE, {"range": "bytes=99999999-"}, {"if-none-match": "*"}, {"if-match": '"of-nginx"'}],
)
def test_a_proxy_in_front_sends_the_bytes(behind_proxy: Site, ask: Any, method: str, headers: dict[str, str]) -> None:
    (video,) = behind_proxy.services.catalogue.videos()
    answer = ask(behind_proxy, method, f"/videos/{video.id}/stream", headers)
    assert (answer.status, answer.body) == (200, b"")
    folder = behind_proxy.videos.resolve()
    assert answer.headers["x-accel-redirect"] == f"/accel{folder}/100%25%20p%C3%A8re%3F.mp4"
    assert answer.headers["content-type"] == "video/mp4"
    assert "etag" not in answer.headers


@pytest.mark.parametrize("ask", [Site.from_flask, Site.from_rsgi])
def test_behind_a_proxy_who_streams_is_noted_and_who_gets_nothing_is_not(behind_proxy: Site, ask: Any) -> None:
    (video,) = behind_proxy.services.catalogue.videos()
    ask(behind_proxy, "HEAD", f"/videos/{video.id}/stream", TOKEN)
    ask(behind_proxy, "GET", f"/videos/{video.id}/stream", {"range": "bytes=99999999-", **TOKEN})
    assert behind_proxy.notes.noted == []
    ask(behind_proxy, "GET", f"/videos/{video.id}/stream", {**RANGE, **TOKEN})
    assert behind_proxy.notes.noted == [("Bearer x", video.id)]


@pytest.mark.parametrize("ask", [Site.from_flask, Site.from_rsgi])
def test_behind_a_proxy_what_is_not_there_is_404(behind_proxy: Site, ask: Any) -> None:
    assert ask(behind_proxy, "GET", "/videos/nobody/stream", {}).status == 404


def test_a_cookie_is_for_tls_alone_where_the_proxy_says_that_the_viewer_came_over_it(behind_proxy: Site) -> None:
    plain = behind_proxy.from_flask("GET", "/", {})
    assert "Secure" not in plain.headers["Set-Cookie"]
    tls = behind_proxy.from_flask("GET", "/", {"X-Forwarded-Proto": "https"})
    assert "Secure" in tls.headers["Set-Cookie"]


def test_without_a_proxy_nobody_is_believed_who_says_so(site: Site) -> None:
    answer = site.from_flask("GET", "/", {"X-Forwarded-Proto": "https"})
    assert "Secure" not in answer.headers["Set-Cookie"]


def test_a_failure_of_the_adapter_is_a_500_and_a_log_line(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("told to")

    monkeypatch.setattr(wsgi, "run", fails)
    answer = site.from_rsgi("GET", "/healthz", {})
    assert answer.status == 500
    assert b"told to" not in answer.body
