"""The broker killed, frozen, or closing connections: every worker takes messages again, and as many as before."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

import celeryconfig
from flixtrail.commands.workers import addresses
from local import service_parts
from local.processes import process_tree
from tests.client import Client, a_view
from tests.conftest import Demo
from tests.demo import ROOT
from tests.faults.accepting import accepted, stored_once
from tests.faults.broker import frozen
from tests.faults.workers import Management, logged, pids
from tests.waiting import until

pytestmark = pytest.mark.rabbitmq

#: Once the broker answers again.
CONSUMING_AGAIN_S = 10
PREFETCH = service_parts.WORKER_PROCESSES * celeryconfig.worker_prefetch_multiplier


def all_consume(demo: Demo, timeout_s: float) -> None:
    expected = [PREFETCH] * len(demo.status()["workers"])
    broker = Management(demo)
    until(lambda: broker.ask("/overview"), 60, what="the broker", every_s=0.1)
    until(lambda: broker.prefetches() == expected, timeout_s, what="every worker to consume", every_s=0.1)


def kill_broker(demo: Demo) -> None:
    broker = Management(demo)
    os.kill(demo.status()["broker"]["pid"], signal.SIGKILL)
    until(lambda: not broker.prefetches(), what="the broker to be gone")


def test_workers_consume_again_whenever_the_broker_is_back(demo: Demo, client: Client, viewer_id: str) -> None:
    workers = pids(demo)
    kill_broker(demo)
    ids = [accepted(client, a_view())]
    all_consume(demo, CONSUMING_AGAIN_S)
    assert pids(demo) == workers
    # And one that is told to stop does not wait for the broker first.
    supervisor, name, log = (
        demo.running().supervisor,
        f"{service_parts.WORKER}1",
        demo.state / "log" / "supervisord.log",
    )
    noticed, before = logged(demo, "RabbitMQ is away"), len(log.read_text())
    kill_broker(demo)
    until(lambda: logged(demo, "RabbitMQ is away") >= noticed + len(workers), what="every worker to notice")
    supervisor.stop(name)
    until(lambda: supervisor.status()[name].stopped, what="the worker to leave")
    assert f"stopped: {name} (exit status 0)" in log.read_text()[before:]
    supervisor.start(name)
    all_consume(demo, CONSUMING_AGAIN_S)
    stored_once(demo, viewer_id, ids)


def test_a_worker_whose_connection_is_closed_consumes_again(demo: Demo, client: Client, viewer_id: str) -> None:
    workers, broker = pids(demo), Management(demo)
    closed = broker.consuming_connections()
    assert len(closed) == len(workers)
    for connection in closed:
        broker.close(connection)
    ids = [accepted(client, a_view())]
    until(lambda: not set(closed) & set(broker.consuming_connections()), what="new connections")
    all_consume(demo, CONSUMING_AGAIN_S)
    assert pids(demo) == workers
    stored_once(demo, viewer_id, ids)


def test_a_worker_is_not_locked_out_by_its_own_old_connection(demo: Demo) -> None:
    """Its host lost its power, say: the broker still sees the old connection when the new process comes."""
    worker = demo.running().workers()[0]
    assert worker.pid
    part = service_parts.worker(demo.running().state, worker.name, addresses(demo.running()))
    consumers = len(demo.status()["workers"])
    with frozen(worker.pid), (demo.state / "log" / "history-worker-again.log").open("wb") as log:
        again = subprocess.Popen(
            part.argv, env={**part.environment, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log, start_new_session=True
        )
        try:
            broker = Management(demo)
            until(lambda: len(broker.prefetches()) == consumers + 1, 15, what="the new process to consume")
            assert again.poll() is None
        finally:
            for process in process_tree(again.pid):
                process.kill()
            again.wait()
    all_consume(demo, CONSUMING_AGAIN_S)
