"""A broker that refuses a worker: told once in the broker's own words, tried again, and mended at the broker alone."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import pytest

from local.rabbitmq import VIRTUAL_HOST
from tests.conftest import Demo
from tests.demo import ROOT, environment
from tests.faults.workers import Management
from tests.waiting import until

pytestmark = pytest.mark.rabbitmq

#: Warnings and worse: the time, the level, the text.
TOLD = re.compile(r"^\S+Z \[(?:warning|error|critical) *\] (.*)$", re.MULTILINE)


@contextmanager
def a_worker(demo: Demo, log: Path, amqp_url: str) -> Iterator[psutil.Process]:
    """One beside those of the demo, as a service manager starts it."""
    worker = ("-m", "celery", "-A", "history_worker.app", "worker", "-c1", "-n", f"late-{uuid4()}@here")
    settings = environment(AMQP_URL=amqp_url, DATABASE_URL=demo.running().database_url, LOG_FORMAT="console")
    with (
        log.open("w") as out,
        subprocess.Popen([sys.executable, *worker], cwd=ROOT, env=settings, stdout=out, stderr=out) as process,
    ):
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


def test_what_is_refused_is_told_once_and_works_as_soon_as_the_broker_is_changed(demo: Demo, tmp_path: Path) -> None:
    broker, log, user = Management(demo), tmp_path / "log", f"late-{uuid4()}"
    port = urlsplit(demo.status()["broker"]["url"]).port

    def says(words: str) -> None:
        until(lambda: words in log.read_text(), 20, what=words)

    def permit(configure: str) -> None:
        rights = {"configure": configure, "write": ".*", "read": ".*"}
        broker.ask(f"/permissions/{VIRTUAL_HOST}/{user}", "PUT", rights)

    with a_worker(demo, log, f"amqp://{user}:my-secret@127.0.0.1:{port}/{VIRTUAL_HOST}") as worker:
        says("ACCESS_REFUSED - Login was refused")
        open_files = worker.num_fds()
        broker.ask(f"/users/{user}", "PUT", {"password": "my-secret", "tags": ""})
        says("NOT_ALLOWED - ")
        permit("^$")
        says("RabbitMQ refuses what this worker needs")
        # One may just be open. There were several attempts by now, of two files each.
        assert worker.num_fds() <= open_files + 2, "connections that were refused stay open"
        permit(".*")
        says("RabbitMQ is back")
        told = TOLD.findall(log.read_text())
    broker.ask(f"/users/{user}", "DELETE")
    whole = log.read_text()
    kinds = [line.split("[")[0].strip() for line in told]
    assert kinds[:2] == ["RabbitMQ refuses this worker"] * 2, whole
    assert kinds[2] == "RabbitMQ refuses what this worker needs", whole
    # A permission that changes in the middle of a declaration may be told in two ways; no attempt is told by itself.
    assert len(kinds) <= 5, whole
    assert "Traceback" not in whole
    assert "my-secret" not in whole


@pytest.fixture
def demo(rabbitmq_demo: Demo) -> Demo:
    return rabbitmq_demo
