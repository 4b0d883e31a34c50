"""All web processes of a server, and all servers with one LIMITS_FILE, count together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client import Client, a_view
from tests.clips import make_clip
from tests.web import web_server

BURST = 20


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_clip(folder / "clip-1.mp4")
    return folder


def statuses(*servers: str, cookie: str) -> list[int]:
    """What 60 posts get. Each has a connection of its own, so that every process answers some."""
    headers = {"Cookie": cookie, "Connection": "close"}
    return [
        Client(servers[number % len(servers)]).post("/api/views", json=a_view(), headers=headers).status
        for number in range(60)
    ]


def test_processes_and_servers_of_one_host_count_together(tmp_path: Path, videos: Path) -> None:
    settings = {
        "SECRET_KEY": "a-secret-of-enough-length",
        "VIEWER_EVENTS_PER_S": "0.001",
        "VIEWER_BURST": str(BURST),
        "LIMITS_FILE": str(tmp_path / "limits"),
        "WEB_PROCESSES": "2",
    }
    for name in "ab":
        (tmp_path / name).mkdir()
    with web_server(tmp_path / "a", videos, **settings) as one, web_server(tmp_path / "b", videos, **settings) as other:
        cookie = one.client.get("/history").headers["Set-Cookie"].partition(";")[0]
        answers = statuses(one.url, other.url, cookie=cookie)
    assert answers == [202] * BURST + [429] * (60 - BURST)


def test_processes_of_one_server_count_together_without_a_file(tmp_path: Path, videos: Path) -> None:
    settings = {"VIEWER_EVENTS_PER_S": "0.001", "VIEWER_BURST": str(BURST), "WEB_PROCESSES": "2"}
    with web_server(tmp_path, videos, **settings) as one:
        cookie = one.client.get("/history").headers["Set-Cookie"].partition(";")[0]
        answers = statuses(one.url, cookie=cookie)
    assert answers == [202] * BURST + [429] * (60 - BURST)
