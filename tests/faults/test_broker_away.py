"""The broker dead, frozen, full, or without its queue: no request hangs, no video waits, and every view is stored once.

What the broker does not confirm lies in the outbox until it does.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from time import monotonic

import pytest
import urllib3
from kombu import Connection

from local import view_counts
from tests.client import Client, a_view
from tests.conftest import Demo
from tests.faults.accepting import accepted, stored_once, streams_and_lives
from tests.faults.broker import frozen, out_of_memory
from tests.waiting import until
from view_events import topology

pytestmark = pytest.mark.rabbitmq

RETURNED = 'flixtrail_messages_total{outcome="returned"}'


def alive(client: Client) -> bool:
    try:
        return client.get("/readyz").status == 200
    except urllib3.exceptions.HTTPError:
        return False


def returned(client: Client) -> float:
    """How many messages came back since no queue takes them: the metric that says that the topology is damaged."""
    lines = client.get("/metrics").data.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(RETURNED))


FAULTS: dict[str, Callable[[Demo], AbstractContextManager[None]]] = {
    "frozen": lambda demo: frozen(demo.status()["broker"]["pid"]),
    "out of memory": out_of_memory,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broker_that_answers_nobody_hangs_nobody(demo: Demo, client: Client, viewer_id: str, fault: str) -> None:
    with FAULTS[fault](demo):
        ids = []
        for _ in range(12):
            ids.append(accepted(client, a_view()))
            streams_and_lives(client)
        assert demo.outbox()
    stored_once(demo, viewer_id, ids)


def test_while_the_broker_is_dead_no_request_waits_for_it(demo: Demo, client: Client, viewer_id: str) -> None:
    os.kill(demo.status()["broker"]["pid"], signal.SIGKILL)
    until(lambda: not view_counts.connected_processes(demo.url), 5, what="the app to notice")
    started = monotonic()
    ids = [accepted(client, a_view()) for _ in range(30)]
    assert monotonic() - started < 30 * 0.25
    streams_and_lives(client)
    stored_once(demo, viewer_id, ids)


def test_the_outbox_of_a_web_process_that_is_killed_is_adopted(demo: Demo, client: Client, viewer_id: str) -> None:
    with frozen(demo.status()["broker"]["pid"]):
        ids = [accepted(client, a_view()) for _ in range(20)]
        kept = demo.outbox()
        assert kept
        for pid in demo.status()["web"]["pids"][1:]:
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(demo.status()["web"]["pids"]) > 2 and alive(client), 20, what="new processes")
        assert demo.outbox() == kept
    stored_once(demo, viewer_id, ids)


def test_a_message_that_no_queue_takes_waits_in_the_outbox(demo: Demo, client: Client, viewer_id: str) -> None:
    with Connection(demo.status()["broker"]["url"]) as connection:
        history = topology.HISTORY(connection.channel())
        # The workers would bring the binding back.
        workers = [worker["pid"] for worker in demo.status()["workers"]]
        until(lambda: history.queue_declare(passive=True).consumer_count == len(workers), 30, what="workers to consume")
        with ExitStack() as all_workers:
            for pid in workers:
                all_workers.enter_context(frozen(pid))
            history.unbind_from(topology.VIEWS, routing_key=history.routing_key)
            before = returned(client)
            ids = [accepted(client, a_view())]
            assert returned(client) > before
        topology.declare(connection)
    stored_once(demo, viewer_id, ids)
