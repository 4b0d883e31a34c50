"""The load test stays on this machine."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from proof.load.target import COMPOSE_SECRET, NoTarget, find, is_loopback


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://127.8.8.8", "http://[::1]:80", "http://localhost"])
def test_this_machine_is_loopback(url: str) -> None:
    assert is_loopback(url)


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1:8000", "http://0.0.0.0:8000", "http://[2001:db8::1]", "http://127.0.0.1@192.0.2.1/"]
)
def test_another_machine_is_not(url: str) -> None:
    assert not is_loopback(url)


def test_another_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoTarget, match=r"192\.0\.2\.1.*ALLOW_REMOTE=1"):
        find({"HOST": "http://192.0.2.1:8000", "STATE": str(tmp_path)})


@pytest.mark.parametrize("host", ["ftp://127.0.0.1", "http://", "http://:80", "://"])
def test_what_is_no_address_is_named(tmp_path: Path, host: str) -> None:
    with pytest.raises(NoTarget, match="HOST"):
        find({"HOST": host, "STATE": str(tmp_path)})


def test_a_host_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NoTarget, match=rf"Nothing answers at http://127\.0\.0\.1:{port}.*make demo"):
        find({"HOST": f"127.0.0.1:{port}", "STATE": str(tmp_path)})


def test_the_key_of_compose_is_the_one_that_stands_there() -> None:
    compose = Path(__file__).parents[2] / "docker-compose.yml"
    assert f"${{SECRET_KEY:-{COMPOSE_SECRET}}}" in compose.read_text()
