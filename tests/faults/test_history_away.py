"""The history API frozen: asking for the history fails soon and says so; recording and streaming go on."""

from __future__ import annotations

import os
import signal
from time import monotonic
from uuid import uuid4

import psycopg
import pytest

from tests.client import Client, a_view
from tests.conftest import Demo
from tests.waiting import until

pytestmark = pytest.mark.rabbitmq


def test_a_frozen_history_api_stops_neither_recording_nor_streaming(rabbitmq_demo: Demo) -> None:
    client = Client(rabbitmq_demo.url, rabbitmq_demo.token(f"alice-{uuid4()}"))
    pids = rabbitmq_demo.status()["history_api"]["pids"]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        started = monotonic()
        answer = client.get("/api/history")
        assert monotonic() - started < 1.5
        assert answer.status == 503
        assert "still being recorded" in answer.json()["detail"]
        assert int(answer.headers["Retry-After"]) >= 1
        client.record([a_view()])
        assert client.get("/videos/clip-1/stream", headers={"Range": "bytes=0-99"}).status == 206
        assert client.get("/readyz").status == 200
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    until(lambda: client.get("/api/history").status == 200, what="the history to be back")
    until(client.history, what="what was recorded meanwhile")


def test_connections_that_postgresql_has_closed_meanwhile_are_not_noticed_by_the_reader(rabbitmq_demo: Demo) -> None:
    client = Client(rabbitmq_demo.url, rabbitmq_demo.token(f"alice-{uuid4()}"))
    until(lambda: client.get("/api/history").status == 200, what="a connection in the pool")
    with psycopg.connect(rabbitmq_demo.status()["database"]["url"], autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'flixtrail'"
        )
    assert client.get("/api/history").status == 200
