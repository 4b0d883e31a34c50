"""A file of 5 GB: memory stays flat, and every byte can be reached."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clips import sparse
from tests.web import Web, web_server

SIZE = 5 * 2**30
#: What the process may grow by. The file is 170 times as large.
GROWTH_BYTES = 30 * 2**20
RANGE_BYTES = 64 * 2**20


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    path = sparse(tmp_path / "videos" / "big.mp4", SIZE)
    with path.open("r+b") as file:
        file.seek(4_400_000_000)  # past what 32 bits can count
        file.write(b"here")
    with web_server(tmp_path, tmp_path / "videos", WEB_PROCESSES="1") as web:
        yield web


def test_memory_stays_flat(web: Web) -> None:
    client = web.client
    assert client.get("/videos/big/stream", {"Range": "bytes=0-99"}).status == 206
    (worker,) = web.workers()
    before = worker.memory_info().rss
    for number in range(16):
        start = number * RANGE_BYTES * 4
        answer = client.get("/videos/big/stream", {"Range": f"bytes={start}-{start + RANGE_BYTES - 1}"})
        assert len(answer.data) == RANGE_BYTES
        assert worker.memory_info().rss - before < GROWTH_BYTES
    with web.connect("GET /videos/big/stream HTTP/1.1\r\nHost: x\r\n\r\n") as abandoned:
        assert f"content-length: {SIZE}".encode() in abandoned.recv(4096)
        assert worker.memory_info().rss - before < GROWTH_BYTES
    assert client.get("/healthz").status == 200
    assert worker.memory_info().rss - before < GROWTH_BYTES


def test_bytes_beyond_four_gigabytes_are_the_right_ones(web: Web) -> None:
    answer = web.client.get("/videos/big/stream", {"Range": "bytes=4400000000-4400000003"})
    assert (answer.status, answer.data) == (206, b"here")
    assert answer.headers["Content-Range"] == f"bytes 4400000000-4400000003/{SIZE}"
    answer = web.client.get("/videos/big/stream", {"Range": "bytes=-1"})
    assert answer.headers["Content-Range"] == f"bytes {SIZE - 1}-{SIZE - 1}/{SIZE}"
    assert web.client.get("/videos/big/stream", {"Range": f"bytes={SIZE}-"}).status == 416
