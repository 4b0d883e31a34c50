"""Learner mode: kill -9 all processes of a worker's pool, and everything is stored all the same."""

from __future__ import annotations

import os
import signal

import psycopg
import pytest

from tests.client import Client, a_view
from tests.conftest import Demo
from tests.waiting import until

KILLS = 3
#: What a dead process held comes back after pgmq's visibility timeout at the latest (celeryconfig.py: 15 s).
STORED_S = 40


def children(demo: Demo) -> set[int]:
    return {pid for worker in demo.status()["workers"] for pid in worker["children"]}


def test_all_processes_of_the_pools_are_killed_and_everything_is_stored(embedded_demo: Demo) -> None:
    demo = embedded_demo
    client = Client(demo.url, demo.token("nina"))
    accepted: list[str] = []
    for _ in range(KILLS):
        before = children(demo)
        accepted += client.post("/api/views", json=[a_view() for _ in range(100)]).json()["event_ids"]
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        accepted += client.post("/api/views", json=[a_view() for _ in range(100)]).json()["event_ids"]
        until(lambda before=before: len(children(demo) - before) >= len(before), 20, what="new processes")  # type: ignore[misc]
    with psycopg.connect(demo.status()["database"]["url"], autocommit=True) as connection:

        def stored() -> int:
            row = connection.execute(
                "SELECT count(*) FROM view_events WHERE event_id = ANY(%s::uuid[])", [accepted]
            ).fetchone()
            assert row
            return int(row[0])

        until(lambda: stored() == len(accepted), STORED_S, what="every view to be stored")


@pytest.mark.parametrize("third", [{"chain": [{"task": "x"}]}, {"callbacks": [{"task": "x"}]}])
def test_what_no_worker_runs_is_a_dead_letter_here_too(embedded_demo: Demo, third: dict[str, object]) -> None:
    """pgmq deletes what is rejected: the worker puts it among the dead letters itself."""
    from kombu import Connection, Producer

    from view_events import topology
    from view_events.event import TASK

    running = embedded_demo.running()
    url = running.document["broker"]["url"]
    options = {"conn_string": topology.messages_database(url), "init_extension": False}
    with Connection(url, transport_options=options) as connection, connection.channel() as channel:
        topology.declare_on(channel)
        before = topology.DEAD_LETTERS(channel).queue_declare(passive=True).message_count
        Producer(channel).publish(
            [[[]], {"version": 1}, third],
            serializer="json",
            headers={"task": TASK, "id": "hostile"},
            exchange=topology.VIEWS.name,
            routing_key="view.progress",
        )
        until(
            lambda: topology.DEAD_LETTERS(channel).queue_declare(passive=True).message_count > before,
            STORED_S,
            what="a dead letter",
        )
