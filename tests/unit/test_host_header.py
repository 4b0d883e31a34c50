"""Which names the site answers to, and what every answer says to browsers."""

from __future__ import annotations

import pytest

from service.host_header import Hosts
from service.settings import SettingsError, read
from streaming_app import create_app
from streaming_app.settings import StreamingSettings
from tests.clips import make_clip
from tests.rsgi_client import RsgiApp, RsgiClient

PRIVATE = [
    "localhost",
    "localhost:8000",
    "LocalHost.",
    "127.0.0.1:8000",
    "192.168.1.7",
    "[::1]:8000",
    "[fe80::1]",
    "nas",
    "nas:8000",
    "streaming_app",
    "flixtrail_upstream:8000",
    "nas.local",
    "nas.lan:80",
    "films.internal",
    "films.home.arpa",
    "films.localhost:8000",
    "streaming-app.default.svc.cluster.local",
]
PUBLIC = ["evil.example", "evil.com:8000", "127.0.0.1.evil.com", "localhost.evil.com", "a.local.evil.com", "1.2.3.4.5"]
MALFORMED = ["", "a b", "user@nas", "nas/x", "nas,nas", "nas:80:80", "nas:http", "http://nas", "[::1", "x" * 300, "nä"]


def status(host: str | None, *allowed: str, protocol: str = "HTTP/1.1") -> int | None:
    fault = Hosts(allowed).fault(host, protocol)
    return fault and fault[0]


@pytest.mark.parametrize("host", PRIVATE)
def test_names_that_nobody_out_there_can_own_are_answered(host: str) -> None:
    assert status(host) is None


@pytest.mark.parametrize("host", PUBLIC)
def test_a_public_name_is_answered_if_the_setting_has_it(host: str) -> None:
    name = host.partition(":")[0]
    fault = Hosts().fault(host, "HTTP/1.1")
    assert fault is not None
    assert fault[0] == 421
    assert f"ALLOWED_HOSTS={name}" in fault[1]
    assert status(host, "films.example.org", name.upper()) is None
    assert status(host, "*") is None


@pytest.mark.parametrize("host", MALFORMED)
def test_what_is_no_name_is_400_whatever_the_setting(host: str) -> None:
    assert status(host, "*") == 400


def test_a_dot_before_a_name_stands_for_all_below_it() -> None:
    assert status("a.b.example.org", ".example.org") is None
    assert status("example.org", ".example.org") == 421
    assert status("evilexample.org", ".example.org") == 421


def test_the_header_is_needed_in_every_protocol_that_knows_it() -> None:
    assert status(None) == 400
    assert status(None, protocol="HTTP/1.0") is None


def test_the_setting_is_a_list_of_names() -> None:
    settings = read(StreamingSettings, {"ALLOWED_HOSTS": "films.example.org, .example.net"})
    assert settings.allowed_hosts == ("films.example.org", ".example.net")
    for wrong in ("https://films.example.org", "films.example.org:8000", "a..b", "films.example.org/x"):
        with pytest.raises(SettingsError, match=r"ALLOWED_HOSTS.*without scheme"):
            read(StreamingSettings, {"ALLOWED_HOSTS": wrong})


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> RsgiClient:
    folder = tmp_path_factory.mktemp("hosts")
    make_clip(folder / "clip-1.mp4")
    settings = StreamingSettings(videos=folder, cache=folder / "cache", outbox=folder / "outbox")
    return RsgiApp(create_app(settings)).client()


@pytest.mark.parametrize("path", ["/", "/api/videos", "/api/history", "/videos/clip-1/stream", "/healthz", "/nothing"])
def test_no_address_of_ours_is_answered_under_a_name_of_somebody_else(client: RsgiClient, path: str) -> None:
    answer = client.get(path, headers={"Host": "evil.example"})
    assert answer.status_code == 421
    assert "ALLOWED_HOSTS" in answer.get_json()["detail"]
    assert "Set-Cookie" not in answer.headers
    assert client.post("/api/views", json={}, headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize("path", ["/watch//clip-1", "//watch/clip-1", "/watch/clip-1/", "/api//videos"])
def test_nothing_leads_elsewhere(client: RsgiClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "Location" not in answer.headers


ANSWERS = [
    "/",
    "/watch/clip-1",
    "/nothing",
    "/api/videos",
    "/api/history",
    "/api/page",
    "/videos/clip-1/stream",
    "/videos/nothing/stream",
    "/videos/clip-1/poster",
    "/static/player.js",
    "/static/icon.svg",
    "/favicon.ico",
    "/healthz",
    "/metrics",
]


@pytest.mark.parametrize("path", ANSWERS)
def test_every_answer_keeps_browsers_from_making_more_of_it(client: RsgiClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers.getlist("X-Content-Type-Options") == ["nosniff"]
    assert headers.getlist("Referrer-Policy") == ["same-origin"]
    (policy,) = headers.getlist("Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
