"""What the RSGI application answers to requests for video bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from werkzeug.test import TestResponse

from service.safe_headers import SAFE_HEADERS
from streaming_app import create_app, wsgi
from streaming_app.dependencies import Services
from streaming_app.recording.stream_views import StreamViews
from streaming_app.settings import StreamingSettings
from streaming_app.videos import catalogue
from tests.clips import make_clip
from tests.rsgi_client import RsgiApp

SETTINGS = {"secret_key": "a-secret-of-enough-length"}
RANGE = {"range": "bytes=10-19"}
TOKEN = {"authorization": "Bearer x"}


class Notes:
    """Remembers who was noted to stream what."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, str]] = []

    def note(self, authorization: str, video_id: str) -> None:
        self.noted.append((authorization, video_id))


class Site:
    """An app over a folder of videos, and who was noted to stream them."""

    def __init__(self, folder: Path, *, behind_proxy: bool = False) -> None:
        self.videos = folder / "videos"
        settings = StreamingSettings(
            cache=folder / "cache",
            videos=self.videos,
            behind_proxy=behind_proxy,
            **SETTINGS,  # type: ignore[arg-type]
        )
        flask = create_app(settings)
        services: Services = flask.extensions["flixtrail"]
        self.notes = Notes()
        self.services = replace(services, stream_views=cast(StreamViews, self.notes))
        flask.extensions["flixtrail"] = self.services
        self._client = RsgiApp(flask).client(use_cookies=False)

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None) -> TestResponse:
        return self._client.open(path, method=method, headers=headers)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    make_clip(tmp_path / "videos" / "clip-1.mp4")
    (tmp_path / "videos" / "empty.mp4").touch()
    site = Site(tmp_path)
    site.services.catalogue.videos()
    return site


@pytest.mark.parametrize(
    ("path", "headers", "sent"),
    [
        ("/videos/clip-1/stream", {}, slice(None)),
        ("/videos/clip-1/stream", {"range": "bytes=10-"}, slice(10, None)),
        ("/videos/clip-1/stream", {"range": "bytes=-10"}, slice(-10, None)),
        ("/videos/clip-1/stream", RANGE, slice(10, 20)),
        ("/videos/empty/stream", {}, slice(None)),
    ],
)
def test_the_bytes_that_were_asked_for_are_sent(site: Site, path: str, headers: dict[str, str], sent: slice) -> None:
    content = (site.videos / f"{path.split('/')[2]}.mp4").read_bytes()
    answer = site.ask("GET", path, headers)
    assert answer.status_code == (206 if "range" in headers else 200)
    assert answer.data == content[sent]
    assert answer.headers["Content-Length"] == str(len(content[sent]))
    assert SAFE_HEADERS.items() <= dict(answer.headers).items()
    head = site.ask("HEAD", path, headers)  # a range is for GET only
    assert (head.status_code, head.data, head.headers["Content-Length"]) == (200, b"", str(len(content)))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/videos/clip-1/stream", {"range": "bytes=99999999-"}, 416),
        ("/videos/clip-1/stream", {"if-none-match": "*"}, 304),
        ("/videos/clip-1/stream", {"if-match": '"x"'}, 412),
        ("/videos/nobody/stream", {}, 404),
        # No video has such an id, so Flask answers.
        ("/videos/a b/stream", {}, 404),
        (f"/videos/{'x' * 129}/stream", {}, 404),
        ("/videos/grüße/stream", {"accept": "text/html"}, 404),
    ],
)
def test_there_is_nothing_to_send(site: Site, method: str, path: str, headers: dict[str, str], status: int) -> None:
    answer = site.ask(method, path, headers)
    if method == "HEAD" and "range" in headers:
        status = 200
    assert answer.status_code == status
    assert SAFE_HEADERS.items() <= dict(answer.headers).items()
    if status >= 400:
        assert answer.mimetype == "application/problem+json"
        assert method == "HEAD" or answer.get_json()["status"] == status
    else:
        assert answer.data == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_video_bytes_can_only_be_read(site: Site, method: str) -> None:
    answer = site.ask(method, "/videos/clip-1/stream")
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD"}


def test_who_streams_with_a_token_and_without_a_page_is_noted(site: Site) -> None:
    site.ask("GET", "/videos/clip-1/stream", {**RANGE, **TOKEN})
    assert site.notes.noted == [("Bearer x", "clip-1")]


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
def test_others_are_not(site: Site, method: str, path: str, headers: dict[str, str]) -> None:
    site.ask(method, path, headers)
    assert site.notes.noted == []


def test_a_file_that_is_gone_is_404_though_the_catalogue_has_it_still(site: Site) -> None:
    (site.videos / "clip-1.mp4").unlink()
    assert site.services.catalogue.get_nowait("clip-1")
    assert site.ask("GET", "/videos/clip-1/stream").status_code == 404


def test_a_file_that_was_replaced_is_served_as_it_is_now(site: Site) -> None:
    before = site.ask("GET", "/videos/clip-1/stream")
    (site.videos / "clip-1.mp4").write_bytes(b"shorter")
    after = site.ask("GET", "/videos/clip-1/stream", {"range": "bytes=2-", "if-range": before.headers["etag"]})
    assert (after.status_code, after.data) == (200, b"shorter")


def test_a_video_that_this_process_has_not_seen_yet_is_not_sent_by_way_of_flask(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Flask's answers are collected in memory, and a video does not fit there.
    monkeypatch.setattr(wsgi, "run", None)
    monkeypatch.setattr(catalogue, "FRESH_ON_MISS_S", 0.0)
    new = make_clip(site.videos / "new.mp4")
    assert site.services.catalogue.get_nowait("new") is None
    assert site.ask("GET", "/videos/new/stream").data == new.read_bytes()


@pytest.fixture
def behind_proxy(tmp_path: Path) -> Site:
    make_clip(tmp_path / "videos" / "100% père?.mp4")
    site = Site(tmp_path, behind_proxy=True)
    site.services.catalogue.videos()
    return site


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "headers",
    # The tags are the proxy's, and so are the answers to them.
    [{}, RANGE, {"range": "bytes=99999999-"}, {"if-none-match": "*"}, {"if-match": '"of-nginx"'}],
)
def test_a_proxy_in_front_sends_the_bytes(behind_proxy: Site, method: str, headers: dict[str, str]) -> None:
    (video,) = behind_proxy.services.catalogue.videos()
    answer = behind_proxy.ask(method, f"/videos/{video.id}/stream", headers)
    assert (answer.status_code, answer.data) == (200, b"")
    folder = behind_proxy.videos.resolve()
    assert answer.headers["x-accel-redirect"] == f"/accel{folder}/100%25%20p%C3%A8re%3F.mp4"
    assert answer.headers["content-type"] == "video/mp4"
    assert "etag" not in answer.headers


def test_behind_a_proxy_who_streams_is_noted_and_who_gets_nothing_is_not(behind_proxy: Site) -> None:
    (video,) = behind_proxy.services.catalogue.videos()
    behind_proxy.ask("HEAD", f"/videos/{video.id}/stream", TOKEN)
    behind_proxy.ask("GET", f"/videos/{video.id}/stream", {"range": "bytes=99999999-", **TOKEN})
    assert behind_proxy.notes.noted == []
    behind_proxy.ask("GET", f"/videos/{video.id}/stream", {**RANGE, **TOKEN})
    assert behind_proxy.notes.noted == [("Bearer x", video.id)]


def test_behind_a_proxy_what_is_not_there_is_404(behind_proxy: Site) -> None:
    assert behind_proxy.ask("GET", "/videos/nobody/stream").status_code == 404


def test_a_cookie_is_for_tls_alone_where_the_proxy_says_that_the_viewer_came_over_it(behind_proxy: Site) -> None:
    plain = behind_proxy.ask("GET", "/")
    assert "Secure" not in plain.headers["Set-Cookie"]
    tls = behind_proxy.ask("GET", "/", {"X-Forwarded-Proto": "https"})
    assert "Secure" in tls.headers["Set-Cookie"]


def test_without_a_proxy_nobody_is_believed_who_says_so(site: Site) -> None:
    answer = site.ask("GET", "/", {"X-Forwarded-Proto": "https"})
    assert "Secure" not in answer.headers["Set-Cookie"]


def test_a_failure_of_the_adapter_is_a_500_and_a_log_line(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("told to")

    monkeypatch.setattr(wsgi, "run", fails)
    answer = site.ask("GET", "/healthz")
    assert answer.status_code == 500
    assert b"told to" not in answer.data
