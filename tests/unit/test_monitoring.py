"""A worker is healthy while its event loop turns and it is connected; what it waits for is no illness."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from safe_consumer import monitoring
from safe_consumer.health import STUCK_S, Health
from service import metrics
from tests.demo import ROOT, environment, free_port


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Health:
    health = Health(clock)
    monkeypatch.setattr(monitoring, "HEALTH", health)
    return health


def ask(path: str) -> tuple[str, Any]:
    environ: dict[str, Any] = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    statuses: list[str] = []
    content = b"".join(monitoring.answer(environ, lambda status, *_: statuses.append(status)))  # type: ignore[arg-type]
    return statuses[0], content if path == "/metrics" else json.loads(content)


def consuming() -> float:
    (family,) = metrics.worker().consuming.collect()
    return family.samples[0].value


def test_a_worker_that_is_not_connected_yet_is_not_healthy(health: Health) -> None:
    health.loop_turned()
    status, body = ask("/healthz")
    assert status == "503 Service Unavailable"
    assert body == {"status": "unhealthy", "detail": "not connected to the broker"}


def test_a_worker_that_turns_and_is_connected_is_healthy(health: Health) -> None:
    health.connected(connected=True)
    assert ask("/healthz") == ("200 OK", {"status": "healthy"})


def test_a_loop_that_does_not_turn_any_more_is_named(health: Health, clock: Clock) -> None:
    health.connected(connected=True)
    clock.now += STUCK_S + 1
    assert ask("/healthz") == (
        "503 Service Unavailable",
        {"status": "unhealthy", "detail": "the event loop has not turned for 11 s"},
    )
    health.loop_turned()
    assert ask("/healthz")[0] == "200 OK"


def test_a_lost_connection_is_named_and_one_that_is_back_forgotten(health: Health) -> None:
    health.connected(connected=True)
    health.connected(connected=False)
    assert ask("/healthz")[0] == "503 Service Unavailable"
    health.connected(connected=True)
    assert ask("/healthz")[0] == "200 OK"


def test_a_worker_that_paused_is_healthy_and_consumes_nothing(health: Health) -> None:
    health.connected(connected=True)
    assert consuming() == 1
    health.paused(paused=True)
    assert ask("/healthz")[0] == "200 OK"
    assert consuming() == 0
    health.connected(connected=False)
    health.connected(connected=True)
    assert consuming() == 0, "a connection that is made anew is no reason to consume"
    health.paused(paused=False)
    assert consuming() == 1


def test_anything_else_is_not_found(health: Health) -> None:
    assert health.fault()
    assert ask("/")[0] == "404 Not Found"
    assert b"flixtrail_deliveries_total" in ask("/metrics")[1]


def worker(**settings: str) -> subprocess.Popen[str]:
    """A worker that will find no broker, as a terminal starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "history_worker.app", "worker", "-c", "1", "-n", f"{os.getpid()}@%h"],
        cwd=ROOT,
        env=environment(AMQP_URL="amqp://127.0.0.1:1//", DATABASE_URL="postgresql:///none", **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_port_that_is_taken_stops_the_start_and_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with worker(METRICS_PORT=str(port)) as process:
            said, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"METRICS_PORT: cannot listen on 127.0.0.1, port {port}: Address already in use" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("port", "expected"), [("0", "METRICS_PORT: '0'"), ("no", "METRICS_PORT: 'no'")])
def test_a_port_that_is_none_stops_the_start_and_is_named(port: str, expected: str) -> None:
    with worker(METRICS_PORT=port) as process:
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert expected in said


def test_a_process_of_the_pool_does_not_keep_the_port_of_a_parent_that_was_killed(tmp_path: Path) -> None:
    """Forked before, and forked while the server answers."""
    port, script = free_port(), tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from safe_consumer import monitoring\n"
        f"monitoring.start('127.0.0.1', {port})\n"
        "if os.fork() == 0:\n"
        "    sys.stdin.read()\n"  # an orphan, until we let it go
        "    os._exit(0)\n"
        "print('forked', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script)], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "forked\n"
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert b"503" in connection.recv(100)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        socket.create_server(("127.0.0.1", port)).close()


def test_no_process_is_forked_while_its_parent_counts() -> None:
    """In learner mode the pool has threads that fork; a lock that is held then stays held in the new process."""
    script = (
        "import os, threading\n"
        "from service.metrics import NO_FORK\n"
        "counted = threading.Event()\n"
        "NO_FORK.acquire()\n"
        "threading.Timer(0.2, lambda: (counted.set(), NO_FORK.release())).start()\n"
        "child = os.fork()\n"
        "free = NO_FORK.acquire(timeout=5)\n"
        "if child == 0:\n"
        "    os._exit(0 if free and counted.is_set() else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or not (free and counted.is_set()))\n"
    )
    subprocess.run([sys.executable, "-c", script], env=environment(), timeout=20, check=True)


def test_a_page_of_another_site_learns_nothing() -> None:
    def asked(path: str, **environ: str) -> str:
        told: list[str] = []
        request: dict[str, Any] = {"PATH_INFO": path, "HTTP_HOST": "evil.example:8002", **environ}
        setup_testing_defaults(request)
        for _ in monitoring.answer(request, lambda status, *_: told.append(status)):  # type: ignore[arg-type]
            pass
        return told[0]

    assert asked("/metrics", REMOTE_ADDR="127.0.0.1") == "421 Misdirected Request"
    assert asked("/healthz", REMOTE_ADDR="::1") == "421 Misdirected Request"
    assert asked("/metrics", REMOTE_ADDR="127.0.0.1", HTTP_HOST="127.0.0.1:8002") == "200 OK"
    assert asked("/metrics", REMOTE_ADDR="10.1.2.3") == "200 OK", "Prometheus on another machine"


def test_the_same_holds_for_the_history_api() -> None:
    from sqlalchemy import create_engine

    from history_worker.api import create_app
    from history_worker.settings import ApiSettings

    settings = ApiSettings.model_validate(
        {"database_url": "postgresql://a@127.0.0.1:1/x", "history_api_token": "t" * 16}
    )
    client = create_app(settings, create_engine("sqlite://")).test_client()
    foreign = {"Host": "evil.example:8001"}
    for path in ("/metrics", "/healthz"):
        assert client.get(path, headers=foreign).status_code == 421
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert client.get("/history", headers=foreign).status_code == 401
    known = {**foreign, "Authorization": f"Bearer {'t' * 16}"}
    assert client.get("/history", headers=known).status_code == 422, "the streaming app may know it under any name"
