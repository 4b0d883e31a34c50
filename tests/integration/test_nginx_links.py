"""deploy/nginx/nginx.conf on this machine's nginx, in front of the real web server: which files it sends."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from tests.client import Client
from tests.clips import make_clip
from tests.conftest import missing
from tests.waiting import until
from tests.web import Web, free_port, web_server

CONFIG = Path(__file__).parents[2] / "deploy" / "nginx" / "nginx.conf"

#: In /usr/sbin, which is not on everybody's path.
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos").resolve()
    make_clip(folder / "real.mp4")
    make_clip(folder / "sub" / "inner.mp4")
    (folder / "inside.mp4").symlink_to(folder / "sub" / "inner.mp4")
    make_clip(folder / "replaced.mp4")
    return folder


@pytest.fixture(scope="module")
def web(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with web_server(tmp_path_factory.mktemp("web"), videos, BEHIND_PROXY="true", WEB_PROCESSES="1") as web:
        yield web


@pytest.fixture(scope="module")
def nginx(web: Web, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    if NGINX is None:
        missing("nginx on this machine")
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    text = CONFIG.read_text()
    for found, here in (
        ("/tmp/", f"{folder}/"),  # first: the other folders are below it
        ("/accel/videos/", f"/accel{videos}/"),
        ("alias /videos/", f"alias {videos}/"),
        ("from=/videos;", f"from={videos};"),
        ("$streaming_app:8000", f"127.0.0.1:{web.port}"),
        ("listen 8080", f"listen 127.0.0.1:{port}"),
        ("/dev/stdout", f"{folder}/access.log"),
        ("/dev/stderr", f"{folder}/error.log"),
    ):
        assert found in text, found
        text = text.replace(found, here)
    if os.getuid() == 0:
        text = f"user root;\n{text}"
    config = folder / "nginx.conf"
    config.write_text(text)
    process = subprocess.Popen([NGINX, "-c", str(config), "-g", "daemon off;"])
    client = Client(f"http://127.0.0.1:{port}")

    def answers() -> bool:
        try:
            return client.get("/proxy/healthz").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    try:
        until(answers, what="nginx to answer")
        until(lambda: client.get("/videos/real/stream").status == 200, what="the videos to be listed")
        yield client
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.mark.parametrize("video_id", ["real", "inside"])
def test_it_sends_files_of_the_library_and_links_within_it(nginx: Client, videos: Path, video_id: str) -> None:
    answer = nginx.get(f"/videos/{video_id}/stream")
    assert (answer.status, answer.headers["content-type"]) == (200, "video/mp4")
    assert answer.data == (videos / f"{video_id}.mp4").read_bytes()


def test_a_file_that_has_become_a_link_is_sent_by_neither_of_them(nginx: Client, videos: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_text("not of the library")
    path = videos / "replaced.mp4"
    assert nginx.get("/videos/replaced/stream").status == 200
    path.unlink()
    path.symlink_to(secret)
    answer = nginx.get("/videos/replaced/stream")
    assert answer.status == 404
    assert b"not of the library" not in answer.data


def test_nginx_is_told_the_real_name_and_follows_no_link(nginx: Client, videos: Path, web: Web) -> None:
    assert nginx.get("/videos/inside/stream").status == 200
    # Between the streaming app's answer and nginx's open: what it would name is asked for by its real name.
    named = Client(web.url).get("/videos/inside/stream").headers["x-accel-redirect"]
    assert named == f"/accel{videos}/sub/inner.mp4"
    assert "disable_symlinks on from=/videos;" in CONFIG.read_text()
