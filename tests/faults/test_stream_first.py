"""The stream never waits for the history: the first byte comes as soon with a broken broker as with a healthy one.

Every request has the token of a viewer who was never seen before, so that each also records a view. Healthy and broken
alternate in short turns on the same app, so that a busy machine slows both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from local import view_counts
from proof.chaos.proxy import THERE, ProxyProcess
from streaming_app.access.auth import Tokens
from tests.conftest import Demo
from tests.demo import free_port
from tests.faults.broker import frozen, out_of_memory
from tests.waiting import until
from tests.web import Web, web_server

pytestmark = pytest.mark.rabbitmq

SECRET = "a-secret-of-enough-length"
#: The name of the link.
BROKER = "broker"
REQUESTS = 2_000
#: Of each kind, before the other has its turn.
IN_TURN = 1_000
#: What a viewer may notice of a broken broker, at the most.
APART_S = 0.025


class Viewer:
    """Somebody who starts to watch, again and again."""

    def __init__(self, url: str, tokens: Tokens) -> None:
        parts = urlsplit(url)
        self._connection = HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        self._tokens = tokens
        self.url = url

    def close(self) -> None:
        self._connection.close()

    def first_bytes(self, requests: int) -> list[float]:
        """Seconds from each request to the head of its answer."""
        times = []
        for _ in range(requests):
            headers = {"Authorization": f"Bearer {self._tokens.viewer(uuid4().hex)}", "Range": "bytes=0-9999"}
            started = perf_counter()
            self._connection.request("GET", "/videos/clip-1/stream", headers=headers)
            answer = self._connection.getresponse()
            times.append(perf_counter() - started)
            assert answer.status == 206
            answer.read()
        return times


def p99(times: list[float]) -> float:
    return quantiles(times, n=100)[98]


def compare(viewer: Viewer, broken: Callable[[], AbstractContextManager[object]]) -> None:
    """2,000 requests each, in turns."""
    healthy_s: list[float] = []
    broken_s: list[float] = []
    while len(healthy_s) < REQUESTS:
        until(lambda: view_counts.connected_processes(viewer.url) == 2, 40, what="both processes to be connected")
        healthy_s += viewer.first_bytes(IN_TURN)
        with broken():
            broken_s += viewer.first_bytes(IN_TURN)
    figures = f"p99 healthy {p99(healthy_s) * 1000:.1f} ms, broken {p99(broken_s) * 1000:.1f} ms"
    assert p99(broken_s) < p99(healthy_s) + APART_S, figures
    print(figures)  # noqa: T201 (shown by pytest -rP)


@pytest.fixture
def proxy() -> Iterator[ProxyProcess]:
    with ProxyProcess() as process:
        yield process


@pytest.fixture
def web(rabbitmq_demo: Demo, clips: Path, tmp_path: Path, proxy: ProxyProcess) -> Iterator[Web]:
    """A streaming app that reaches the broker of the demo through the proxy."""
    url, port = rabbitmq_demo.status()["broker"]["url"], free_port()
    proxy.serve(BROKER, port, int(urlsplit(url).port or 0))
    proxied = url.replace(f":{urlsplit(url).port}/", f":{port}/")
    with web_server(tmp_path, clips, SECRET_KEY=SECRET, AMQP_URL=proxied) as server:
        until(lambda: view_counts.connected_processes(server.url) == 2, 20, what="both processes to be connected")
        yield server
    rabbitmq_demo.settled()


@pytest.fixture
def viewer(web: Web) -> Iterator[Viewer]:
    one = Viewer(web.url, Tokens(SECRET))
    yield one
    one.close()


@contextmanager
def down(proxy: ProxyProcess) -> Iterator[None]:
    proxy.cut(BROKER)
    try:
        yield
    finally:
        proxy.heal(BROKER)


@contextmanager
def a_black_hole(proxy: ProxyProcess) -> Iterator[None]:
    proxy.swallow(BROKER, THERE)
    try:
        yield
    finally:
        proxy.heal(BROKER)


def test_with_the_broker_down(viewer: Viewer, proxy: ProxyProcess) -> None:
    compare(viewer, lambda: down(proxy))


def test_with_a_black_hole_in_the_place_of_the_broker(viewer: Viewer, proxy: ProxyProcess) -> None:
    compare(viewer, lambda: a_black_hole(proxy))


def test_with_the_broker_stopped(viewer: Viewer, rabbitmq_demo: Demo) -> None:
    compare(viewer, lambda: frozen(rabbitmq_demo.status()["broker"]["pid"]))


def test_with_a_broker_that_is_out_of_memory(viewer: Viewer, rabbitmq_demo: Demo) -> None:
    compare(viewer, lambda: out_of_memory(rabbitmq_demo))
