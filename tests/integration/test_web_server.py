"""The web server's processes: how they start, end, and come back; and what the adapter refuses by itself."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import psutil
import pytest

from tests.clips import make_clip, sparse
from tests.waiting import until
from tests.web import NO_BROKER, Web, start, web_server

GET_LONG = "GET /videos/long/stream HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_clip(folder / "clip-1.mp4", title="A clip")
    sparse(folder / "long.mp4", 200 * 2**20)
    sparse(folder / "empty.mp4", 0)
    return folder


@pytest.fixture
def web(tmp_path: Path, videos: Path) -> Iterator[Web]:
    with web_server(tmp_path, videos) as web:
        yield web


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> Iterator[Web]:
    """For tests that leave the server as it was."""
    with web_server(tmp_path_factory.mktemp("web"), videos) as web:
        yield web
        assert "Traceback" not in web.log.read_text()


def gone(*pids: int) -> bool:
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


def seconds_until_gone(pids: list[int]) -> float:
    began = monotonic()
    until(lambda: gone(*pids), what=f"{pids} to be gone")
    return monotonic() - began


# -- Its end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_it_leaves_at_once_when_nobody_is_watching(web: Web, sign: signal.Signals) -> None:
    pids = [worker.pid for worker in web.workers()]
    with web.connect("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") as idle:
        assert idle.recv(1000)
        web.process.send_signal(sign)
        assert seconds_until_gone([web.process.pid, *pids]) < 2
    assert web.process.wait() == 0


def test_it_leaves_in_time_when_a_viewer_has_stopped_reading(web: Web) -> None:
    pids = [worker.pid for worker in web.workers()]
    with web.connect(GET_LONG) as stopped:
        assert stopped.recv(1000)
        web.process.send_signal(signal.SIGTERM)
        assert seconds_until_gone([web.process.pid, *pids]) < 5
    assert web.process.wait() == 0
    assert "leaving with viewers who have not read to the end" in web.log.read_text()


def test_one_process_told_to_leave_goes_in_time_and_another_takes_its_place(web: Web) -> None:
    with web.connect(GET_LONG) as stopped:
        assert stopped.recv(1000)
        watched = next(worker for worker in web.workers() if any("long" in file.path for file in worker.open_files()))
        watched.send_signal(signal.SIGTERM)
        assert seconds_until_gone([watched.pid]) < 5
    until(lambda: len(web.workers()) == 2, what="two processes")
    assert web.answers()


def test_processes_leave_when_the_main_process_was_killed_and_another_can_start(
    web: Web, tmp_path: Path, videos: Path
) -> None:
    pids = [worker.pid for worker in web.workers()]
    with web.connect(GET_LONG) as stopped:
        assert stopped.recv(1000)
        web.process.kill()
        web.process.wait()
        # Even at once: they give the port free before they are gone.
        successor = start(tmp_path, videos, port=web.port)
        try:
            assert seconds_until_gone(pids) < 5
            until(successor.answers, what="the successor to answer")
        finally:
            successor.process.terminate()
            assert successor.process.wait(timeout=10) == 0
    # The fixture terminates a process that has ended: nothing.


def test_a_killed_process_is_replaced_within_a_second(web: Web) -> None:
    before = {worker.pid for worker in web.workers()}
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    until(lambda: len({worker.pid for worker in web.workers()} - before) == 1, timeout_s=1, what="another process")
    new = ({worker.pid for worker in web.workers()} - before).pop()
    until(
        lambda: any(c.status == psutil.CONN_LISTEN for c in psutil.Process(new).net_connections()), what="it to listen"
    )
    assert web.client.get("/metrics").status == 200


# -- Its start -------------------------------------------------------------------------------------


def run(**env: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "streaming_app"],
        env={**os.environ, "AMQP_URL": NO_BROKER, **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_taken_port_is_one_line_that_names_it(tmp_path: Path, videos: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, message = run(PORT=port, CACHE=str(tmp_path), VIDEOS=str(videos))
    assert (status, message.count("\n")) == (1, 1)
    assert f"Port {port}" in message


def test_a_port_taken_by_another_such_server_is_not_shared_with_it(shared: Web, tmp_path: Path, videos: Path) -> None:
    status, message = run(PORT=str(shared.port), CACHE=str(tmp_path), VIDEOS=str(videos))
    assert status == 1
    assert str(shared.port) in message


@pytest.mark.parametrize(
    ("env", "status", "named"),
    [
        ({"PORT": "none"}, 2, "PORT"),
        ({"VIDEOS": "/no/such/folder"}, 2, "VIDEOS"),
        ({"AMQP_URL": "http://127.0.0.1"}, 2, "AMQP_URL"),
        ({"HOST": "192.0.2.1", "SECRET_KEY": "k" * 20, "HISTORY_API_TOKEN": "t" * 20}, 1, "192.0.2.1"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said(
    env: dict[str, str], status: int, named: str, tmp_path: Path, videos: Path
) -> None:
    code, message = run(**{"CACHE": str(tmp_path), "VIDEOS": str(videos), **env})
    assert code == status
    assert named in message
    assert "Traceback" not in message


def test_a_host_by_name(tmp_path: Path, videos: Path) -> None:
    with web_server(tmp_path, videos, HOST="localhost", WEB_PROCESSES="1") as web:
        assert web.answers()


# -- Its answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/videos/clip-1/stream", {}, 200),
        ("HEAD", "/videos/clip-1/stream", {}, 200),
        ("GET", "/videos/clip-1/stream", {"Range": "bytes=10-19"}, 206),
        ("GET", "/videos/clip-1/stream", {"Range": "bytes=9999999-"}, 416),
        ("GET", "/videos/clip-1/stream", {"If-None-Match": "*"}, 304),
        ("GET", "/videos/clip-1/stream", {"If-Match": '"x"'}, 412),
        ("GET", "/videos/empty/stream", {}, 200),
        ("GET", "/videos/nobody/stream", {}, 404),
        ("HEAD", "/videos/nobody/stream", {}, 404),
        ("GET", "/videos/clip-1%0A/stream", {}, 404),
        ("GET", "/videos/..%2F..%2Fetc%2Fpasswd/stream", {}, 404),
        ("GET", "/videos/%00/stream", {}, 404),
        ("GET", "/videos/%ff%fe/stream", {}, 404),
        ("GET", f"/videos/{'x' * 5000}/stream", {}, 404),
        ("POST", "/videos/clip-1/stream", {}, 405),
        ("DELETE", "/videos/clip-1/stream", {}, 405),
        ("OPTIONS", "/videos/clip-1/stream", {}, 405),
    ],
)
def test_the_stream_route(shared: Web, method: str, path: str, headers: dict[str, str], status: int) -> None:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *(f"{k}: {v}" for k, v in headers.items())]
    with web_answer(shared, "\r\n".join([*lines, "", ""]).encode()) as (head, body):
        assert head.startswith(f"HTTP/1.1 {status} "), head
        if status >= 400 and method != "HEAD":
            assert "content-type: application/problem+json" in head
            assert json.loads(body)["status"] == status
        if method == "HEAD" or status == 304:
            assert body == b""


def test_the_bytes_are_those_of_the_file(shared: Web, videos: Path) -> None:
    content = (videos / "clip-1.mp4").read_bytes()
    assert shared.client.get("/videos/clip-1/stream").data == content
    assert shared.client.get("/videos/clip-1/stream", {"Range": "bytes=100-199"}).data == content[100:200]
    assert shared.client.get("/videos/clip-1/stream", {"Range": "bytes=-7"}).data == content[-7:]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Content-Length: 2000000"], 413),  # read to its end and thrown away
        (["Content-Length: 5000000000"], 413),  # not read
        (["Transfer-Encoding: chunked"], 411),
    ],
)
def test_bodies_that_are_refused(shared: Web, lines: list[str], status: int) -> None:
    head = "\r\n".join(["POST /api/views HTTP/1.1", "Host: x", "Content-Type: application/json", *lines, "", ""])
    body = b" " * 2_000_000 if lines[0].endswith("2000000") else b""
    with web_answer(shared, head.encode() + body) as (answer, content):
        assert answer.startswith(f"HTTP/1.1 {status} "), answer
        assert json.loads(content)["status"] == status


@pytest.mark.parametrize("path", ["/healthz", "/", "/videos/clip-1/stream"])
@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("HTTP/1.1\r\nHost: nas:8000", 200),
        ("HTTP/1.1\r\nHost: evil.example", 421),
        ("HTTP/1.1\r\nHost: nas\r\nHost: nas", 400),
        ("HTTP/1.1\r\nHost: nas\r\nHost: evil.example", 400),
        ("HTTP/1.1\r\nHost: user@nas", 400),
        ("HTTP/1.1\r\nHost: a b", 400),
        ("HTTP/1.1\r\nHost:", 400),
        ("HTTP/1.1\r\nX: y", 400),
        ("HTTP/1.0\r\nX: y", 200),
    ],
)
def test_who_asks_for_somebody_else_gets_nothing(shared: Web, path: str, head: str, status: int) -> None:
    with web_answer(shared, f"GET {path} {head}\r\n\r\n".encode()) as (answer, _):
        assert answer.split(" ")[1] == str(status), answer


def test_clients_that_go_away_leave_no_trace_in_the_log(web: Web) -> None:
    for request in (
        GET_LONG,
        "POST /api/views HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n[",
        "POST /api/views HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /hea",
    ):
        web.connect(request).close()
    assert web.answers()
    # There is no broker here, which is told once by each process.
    known = ("listening", "the broker cannot be reached")
    assert [line for line in web.log.read_text().splitlines() if line and not any(word in line for word in known)] == []


class web_answer:  # noqa: N801
    """Head and body of the answer to a request as it is written, byte for byte."""

    def __init__(self, web: Web, request: bytes) -> None:
        self._connection = web.connect()
        self._connection.sendall(request)

    def __enter__(self) -> tuple[str, bytes]:
        received = b""
        while b"\r\n\r\n" not in received:
            more = self._connection.recv(65536)
            assert more, received
            received += more
        head, _, body = received.partition(b"\r\n\r\n")
        lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")]
        expected = 0 if head.startswith(b"HTTP/1.1 304") or not lengths else lengths[0]
        self._connection.settimeout(0.5 if not body else 10)
        try:
            while len(body) < expected and (more := self._connection.recv(65536)):
                body += more
        except TimeoutError:
            pass
        return head.decode().lower().replace("http/1.1", "HTTP/1.1"), body

    def __exit__(self, *_: object) -> None:
        self._connection.close()
