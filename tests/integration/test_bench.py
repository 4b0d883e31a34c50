"""The load generator of `make bench`, against a server that counts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from local.state import State
from proof.bench import traffic
from proof.bench.errors import BenchError, Lost
from proof.bench.load import Generator, Plan
from proof.bench.nodes import Nodes
from tests.conftest import need_rabbitmq


class Handler(BaseHTTPRequestHandler):
    """202 for everything, or what the path says instead."""

    protocol_version = "HTTP/1.1"
    bodies: ClassVar[Counter[bytes]] = Counter()

    def do_POST(self) -> None:
        self.bodies[self.rfile.read(int(self.headers["Content-Length"]))] += 1
        status = int(self.path.strip("/") or 202)
        content = b"so it is"
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    Handler.bodies.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def plan(port: int, path: str, clients: list[list[list[traffic.Event]]], rate: float | None = None) -> Plan:
    requests = [[traffic.request(path, "token", body) for body in bodies] for bodies in clients]
    return Plan(port=port, clients=requests, rate=rate)


def test_every_request_arrives_once_and_whole(port: int) -> None:
    clients = traffic.distribute(traffic.bodies(20_000, 500), 8)  # bodies that no socket takes in one piece
    outcome = Generator(plan(port, "/", clients)).wait()
    assert outcome.answers == 40
    assert len(Handler.bodies) == 40
    assert set(Handler.bodies.values()) == {1}
    assert outcome.began < outcome.ended


def test_an_answer_that_is_not_202_fails_the_run_and_is_told(port: int) -> None:
    with pytest.raises(Lost, match="503 Service Unavailable"):
        Generator(plan(port, "/503", traffic.singles(8, 2))).wait()


def test_an_open_loop_keeps_its_rate(port: int) -> None:
    outcome = Generator(plan(port, "/", traffic.singles(100, 10), rate=200)).wait()
    assert outcome.answers == 100
    assert outcome.ended - outcome.began >= 99 / 200


def test_a_second_one_on_the_same_folder_leaves_the_first_alone(tmp_path: Path) -> None:
    """It would take the first one's servers for what an earlier run had left, and end them."""
    need_rabbitmq()
    running = r"A benchmark is running on .* already"
    with State(tmp_path).lock(), pytest.raises(BenchError, match=running), Nodes(tmp_path):
        pass
