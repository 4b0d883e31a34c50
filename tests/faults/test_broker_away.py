"""The broker dead, frozen, full, or without its queue: no request hangs, no video waits, nothing is called accepted."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest
from kombu import Connection

from tests.client import Client, a_view
from tests.conftest import Demo
from tests.waiting import until
from view_events import topology

pytestmark = pytest.mark.rabbitmq

#: A request's deadline (publisher.DEADLINE_S) and room for a busy machine. One that waited for a confirm, or for a
#: connection, would take two seconds (broker.CONFIRM_TIMEOUT_S, CONNECT_TIMEOUT_S).
ANSWERED_S = 0.25 + 1


@pytest.fixture
def demo(rabbitmq_demo: Demo) -> Demo:
    return rabbitmq_demo


@pytest.fixture
def client(demo: Demo) -> Client:
    return Client(demo.url, demo.token("patient"))


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def out_of_memory(demo: Demo, client: Client) -> Iterator[None]:
    """The broker's memory alarm: it takes connections, and reads nothing more from those that publish."""
    configuration = demo.state / "rabbitmq" / "rabbitmq.conf"
    usual = configuration.read_text()

    def restart_with(text: str) -> None:
        configuration.write_text(text)
        os.kill(demo.status()["broker"]["pid"], signal.SIGKILL)
        until(lambda: client.get("/readyz").status == 503, 10, what="the app to notice")
        until(lambda: client.get("/readyz").status == 200, 40, what="the app to connect again")

    restart_with(f"{usual}\nvm_memory_high_watermark.absolute = 1MB\n")
    try:
        yield
    finally:
        restart_with(usual)


def refused(client: Client, view: dict[str, Any]) -> None:
    """The view is not accepted, in time, with all that is needed to send it again."""
    started = monotonic()
    answer = client.post("/api/views", json=view)
    assert monotonic() - started < ANSWERED_S
    assert answer.status == 503, answer.data
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["event_ids"] == [view["event_id"]]


def streams_and_lives(client: Client) -> None:
    for path, headers in (("/videos/clip-1/stream", {"Range": "bytes=0-99999"}), ("/healthz", {}), ("/api/videos", {})):
        started = monotonic()
        assert client.get(path, headers=headers).status in {200, 206}
        assert monotonic() - started < ANSWERED_S


def accepted_again(client: Client, view: dict[str, Any], within_s: float) -> None:
    until(lambda: client.post("/api/views", json=view).status == 202, within_s, what="views to be accepted again")
    until(lambda: client.get("/readyz").status == 200, 5, what="every process to be ready")


def test_a_frozen_broker_hangs_nobody(demo: Demo, client: Client) -> None:
    view = a_view()
    with frozen(demo.status()["broker"]["pid"]):
        for _ in range(12):
            refused(client, view)
            streams_and_lives(client)
    accepted_again(client, view, within_s=10)


def test_a_broker_that_is_out_of_memory_hangs_nobody(demo: Demo, client: Client) -> None:
    view = a_view()
    with out_of_memory(demo, client):
        for _ in range(6):
            refused(client, view)
            streams_and_lives(client)
    accepted_again(client, view, within_s=40)


def test_a_dead_broker_is_known_to_be_away_and_found_again(demo: Demo, client: Client) -> None:
    view = a_view()
    os.kill(demo.status()["broker"]["pid"], signal.SIGKILL)
    until(lambda: client.get("/readyz").status == 503, 5, what="the app to notice")
    refused(client, view)
    streams_and_lives(client)
    accepted_again(client, view, within_s=40)


def test_a_message_that_no_queue_takes_is_not_accepted(demo: Demo, client: Client) -> None:
    with Connection(demo.status()["broker"]["url"]) as connection:
        history = topology.HISTORY(connection.channel())
        # A worker that connects just now would bring the binding back.
        workers = len(demo.status()["workers"])
        until(lambda: history.queue_declare(passive=True).consumer_count == workers, 30, what="every worker to consume")
        history.unbind_from(topology.VIEWS, routing_key=history.routing_key)
        try:
            refused(client, a_view())
        finally:
            topology.declare(connection)
    accepted_again(client, a_view(), within_s=10)
