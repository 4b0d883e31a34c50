"""kill -9 a worker at the worst moments: every accepted view is stored, each once, and the broker delivered it again.

How a worker is caught in the middle: the test inserts a row with one of the ids and does not commit. The worker's
statement waits for that row (the same id may not be stored twice), and holds its delivery for as long as we like.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.client import Client, a_view
from tests.conftest import Demo
from tests.waiting import until

pytestmark = pytest.mark.rabbitmq

EVENTS = 40


@pytest.fixture
def database(demo: Demo) -> Iterator[psycopg.Connection]:
    with psycopg.connect(demo.status()["database"]["url"], autocommit=True) as connection:
        yield connection


@contextmanager
def held_back(demo: Demo, event_id: str) -> Iterator[Callable[[], None]]:
    """Whoever writes this id waits until the yielded function is called."""
    with psycopg.connect(demo.status()["database"]["url"]) as connection:
        connection.execute(
            "INSERT INTO view_events SELECT %s, 'x', 'x', gen_random_uuid(), 'started', 0, NULL, now(), now()",
            [event_id],
        )
        yield connection.rollback


def writers_waiting(database: psycopg.Connection) -> int:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'flixtrail'"
    row = database.execute(waiting).fetchone()
    assert row
    return int(row[0])


def stored(database: psycopg.Connection, ids: list[str]) -> int:
    row = database.execute("SELECT count(*) FROM view_events WHERE event_id = ANY(%s::uuid[])", [ids]).fetchone()
    assert row
    return int(row[0])


def counted(database: psycopg.Connection, viewer_id: str) -> int:
    row = database.execute("SELECT sum(events) FROM playbacks WHERE viewer_id = %s", [viewer_id]).fetchone()
    assert row
    return int(row[0])


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it went with its parent


def record(demo: Demo, viewer_id: str, first: dict[str, Any]) -> list[str]:
    """Forty views in one request, and so in one message; all accepted."""
    return Client(demo.url, demo.token(viewer_id)).record([first, *(a_view() for _ in range(EVENTS - 1))])


def redeliveries(demo: Demo) -> set[str]:
    """The log lines of batches that a worker got again. Written after the commit, before the ack."""
    logs = (path.read_text() for path in sorted((demo.state / "log").glob("history-worker-*.log")))
    return {line for log in logs for line in log.splitlines() if "committed" in line and "redelivered=True" in line}


def everything_is_stored_once(database: psycopg.Connection, viewer_id: str, ids: list[str]) -> None:
    until(lambda: stored(database, ids) == len(ids), timeout_s=40, what="every accepted view to be stored")
    assert stored(database, ids) == counted(database, viewer_id) == len(ids) == EVENTS


def test_worker_killed_while_it_holds_deliveries_loses_nothing(demo: Demo, database: psycopg.Connection) -> None:
    before, viewer_id, blocked = redeliveries(demo), f"holder-{uuid4()}", a_view()
    with held_back(demo, blocked["event_id"]) as let_go:
        ids = record(demo, viewer_id, blocked)
        until(lambda: writers_waiting(database), what="a worker to hold the delivery")
        for worker in demo.status()["workers"]:
            kill([worker["pid"], *worker["children"]])
        let_go()
    everything_is_stored_once(database, viewer_id, ids)
    until(lambda: redeliveries(demo) - before, what="a batch to come again")


def test_worker_child_killed_in_the_middle_of_a_task_gives_its_message_back(
    demo: Demo, database: psycopg.Connection
) -> None:
    before, viewer_id, blocked = redeliveries(demo), f"orphan-{uuid4()}", a_view()
    parents = [worker["pid"] for worker in demo.status()["workers"]]
    with held_back(demo, blocked["event_id"]) as let_go:
        ids = record(demo, viewer_id, blocked)
        until(lambda: writers_waiting(database), what="a child to be in the middle of its task")
        for worker in demo.status()["workers"]:
            kill(worker["children"])
        let_go()
    everything_is_stored_once(database, viewer_id, ids)
    until(lambda: redeliveries(demo) - before, what="a batch to come again")
    assert [worker["pid"] for worker in demo.status()["workers"]] == parents, "a parent died with its child"


def test_worker_killed_between_commit_and_ack_writes_each_view_once(demo: Demo, database: psycopg.Connection) -> None:
    before, viewer_id, blocked = redeliveries(demo), f"window-{uuid4()}", a_view()
    workers = demo.status()["workers"]
    with held_back(demo, blocked["event_id"]) as let_go:
        ids = record(demo, viewer_id, blocked)
        until(lambda: writers_waiting(database), what="a worker to hold the delivery")
        # Children report to their parent, and the parent acknowledges: a frozen parent cannot.
        for worker in workers:
            os.kill(worker["pid"], signal.SIGSTOP)
        let_go()
        until(lambda: stored(database, ids) == EVENTS, what="the child to commit")
    for worker in workers:
        kill([worker["pid"], *worker["children"]])

    def seen_again() -> bool:
        return any(f"events={EVENTS}" in line and "stored=0" in line for line in redeliveries(demo) - before)

    until(seen_again, timeout_s=40, what="the whole batch to come again and find every id stored")
    everything_is_stored_once(database, viewer_id, ids)


def test_views_are_accepted_while_no_worker_lives(demo: Demo, database: psycopg.Connection) -> None:
    for worker in demo.status()["workers"]:
        kill([worker["pid"], *worker["children"]])
    viewer_id = f"patient-{uuid4()}"
    everything_is_stored_once(database, viewer_id, record(demo, viewer_id, a_view()))
