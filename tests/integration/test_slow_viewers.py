"""Viewers who stop reading in the middle of a video starve nobody."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from time import perf_counter

import pytest

from tests.client import a_view
from tests.clips import make_clip, sparse
from tests.waiting import until
from tests.web import Web, web_server

STOPPED = 64


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("web")
    make_clip(folder / "videos" / "clip-1.mp4")
    sparse(folder / "videos" / "long.mp4", 200 * 2**20)
    # The fewest threads and processes that make sense: that there are enough of them is not what is tested.
    with web_server(
        folder, folder / "videos", WEB_PROCESSES="2", WEB_THREADS="4", SECRET_KEY="a-key-for-this-test"
    ) as web:
        milliseconds_of(web, 20, "/healthz")  # the first requests of a process are slower, with or without viewers
        yield web


@pytest.fixture
def stopped(web: Web) -> Iterator[list[socket.socket]]:
    """Clients who have read the beginning of a video and then nothing more."""
    with ExitStack() as stack:
        clients = [
            stack.enter_context(web.connect("GET /videos/long/stream HTTP/1.1\r\nHost: x\r\n\r\n"))
            for _ in range(STOPPED)
        ]
        assert {client.recv(1000)[:15] for client in clients} == {b"HTTP/1.1 200 OK"}
        wait_for_full_sockets(web)
        yield clients


def wait_for_full_sockets(web: Web) -> None:
    """Until all has been sent that the sockets can hold, and the clients have really stopped everything."""
    seen = [positions(web)]

    def nothing_moves() -> bool:
        seen.append(positions(web))
        return seen[-1] == seen[-2]

    until(nothing_moves, every_s=0.2, what="the sockets to be full")


def positions(web: Web) -> list[int]:
    """How far each copy of the video that is being sent has been read; none is read where it is only kept open."""
    files = [file for process in web.workers() for file in process.open_files()]
    return [file.position for file in files if file.path.endswith("long.mp4") and file.position]


def milliseconds_of(web: Web, times: int, path: str, **post: object) -> list[float]:
    client, taken = web.client, []
    for _ in range(times):
        began = perf_counter()
        answer = client.post(path, **post) if post else client.get(path)  # type: ignore[arg-type]
        taken.append((perf_counter() - began) * 1000)
        assert answer.status < 500 or answer.status == 503, answer.data
    return sorted(taken)


@pytest.mark.usefixtures("stopped")
def test_health_is_answered_at_once(web: Web) -> None:
    assert milliseconds_of(web, 100, "/healthz")[-1] < 100


@pytest.mark.usefixtures("stopped")
def test_views_are_answered_within_their_deadline(web: Web) -> None:
    # No broker here: it is told at once that they were not recorded, and waits for nobody who watches.
    assert milliseconds_of(web, 100, "/api/views", json=a_view())[98] < 300


@pytest.mark.usefixtures("stopped")
def test_another_viewer_is_served(web: Web) -> None:
    began = perf_counter()
    answer = web.client.get("/videos/long/stream", {"Range": "bytes=1000000-20999999"})
    assert (answer.status, len(answer.data)) == (206, 20_000_000)
    assert perf_counter() - began < 5


def test_who_stopped_can_go_on_reading(stopped: list[socket.socket]) -> None:
    received = 0
    while received < 10_000_000:
        content = stopped[0].recv(2**20)
        assert content
        received += len(content)


def test_files_and_memory_are_given_back_when_they_go_away(web: Web, stopped: list[socket.socket]) -> None:
    assert len(positions(web)) == STOPPED
    for client in stopped:
        client.close()
    until(lambda: not positions(web), what="the files to be closed")
    assert "Traceback" not in web.log.read_text()
