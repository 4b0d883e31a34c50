"""kill -9 a worker at the worst moments: every accepted view is stored, each once, and the broker delivered it again.

How a worker is caught in the middle: the test inserts a row with one of the ids and does not commit. The worker's
statement waits for that row (the same id may not be stored twice), and holds its delivery for as long as we like.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
import pytest

from tests.client import Client, a_view
from tests.conftest import Demo
from tests.waiting import until

pytestmark = pytest.mark.rabbitmq

EVENTS = 40


@pytest.fixture
def demo(rabbitmq_demo: Demo) -> Demo:
    return rabbitmq_demo


@pytest.fixture
def database(demo: Demo) -> Iterator[psycopg.Connection]:
    with psycopg.connect(demo.status()["database"]["url"], autocommit=True) as connection:
        yield connection


@contextmanager
def held_back(demo: Demo, event_id: str) -> Iterator[Callable[[], None]]:
    """Whoever writes this id waits until the yielded function is called."""
    with psycopg.connect(demo.status()["database"]["url"]) as connection:
        connection.execute(
            "INSERT INTO view_events SELECT %s, '', '', gen_random_uuid(), 'started', 0, NULL, now(), now()", [event_id]
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


def record(demo: Demo, viewer_id: str) -> list[str]:
    """Forty views in forty requests: one or more messages, all accepted."""
    client = Client(demo.url, demo.token(viewer_id))
    views = [a_view() for _ in range(EVENTS)]
    return [event_id for view in views for event_id in client.record([view])]


def everything_is_stored_once(demo: Demo, database: psycopg.Connection, viewer_id: str, ids: list[str]) -> None:
    until(lambda: stored(database, ids) == len(ids), timeout_s=40, what="every accepted view to be stored")
    until(lambda: demo.broker_is_empty(), timeout_s=40, what="every delivery to be acknowledged")
    assert stored(database, ids) == counted(database, viewer_id) == len(ids) == EVENTS


def test_worker_killed_while_it_holds_deliveries_loses_nothing(demo: Demo, database: psycopg.Connection) -> None:
    before = demo.redelivered()
    blocked = a_view()
    with held_back(demo, blocked["event_id"]) as let_go:
        client = Client(demo.url, demo.token("holder"))
        ids = client.record([blocked, *(a_view() for _ in range(EVENTS - 1))])
        until(lambda: writers_waiting(database), what="a worker to hold the delivery")
        for worker in demo.status()["workers"]:
            kill([worker["pid"], *worker["children"]])
        let_go()
    everything_is_stored_once(demo, database, "holder", ids)
    assert demo.redelivered() > before


def test_worker_child_killed_in_the_middle_of_a_task_gives_its_message_back(
    demo: Demo, database: psycopg.Connection
) -> None:
    before = demo.redelivered()
    blocked = a_view()
    with held_back(demo, blocked["event_id"]) as let_go:
        client = Client(demo.url, demo.token("orphan"))
        ids = client.record([blocked, *(a_view() for _ in range(EVENTS - 1))])
        until(lambda: writers_waiting(database), what="a child to be in the middle of its task")
        parents = [worker["pid"] for worker in demo.status()["workers"]]
        for worker in demo.status()["workers"]:
            kill(worker["children"])
        let_go()
    everything_is_stored_once(demo, database, "orphan", ids)
    assert demo.redelivered() > before
    assert [worker["pid"] for worker in demo.status()["workers"]] == parents, "a parent died with its child"


def test_worker_killed_between_commit_and_ack_writes_each_view_once(demo: Demo, database: psycopg.Connection) -> None:
    before = demo.redelivered()
    blocked = a_view()
    workers = demo.status()["workers"]
    with held_back(demo, blocked["event_id"]) as let_go:
        client = Client(demo.url, demo.token("window"))
        ids = client.record([blocked, *(a_view() for _ in range(EVENTS - 1))])
        until(lambda: writers_waiting(database), what="a worker to hold the delivery")
        # Children report to their parent, and the parent acknowledges: a frozen parent cannot.
        for worker in workers:
            os.kill(worker["pid"], signal.SIGSTOP)
        let_go()
        until(lambda: stored(database, ids) == EVENTS, what="the child to commit")
    assert not demo.broker_is_empty(), "the delivery was acknowledged although its worker is frozen"
    for worker in workers:
        kill([worker["pid"], *worker["children"]])
    everything_is_stored_once(demo, database, "window", ids)
    assert demo.redelivered() > before, "nothing was redelivered: the window was not hit"
    assert UUID(blocked["event_id"])


def test_views_are_accepted_while_no_worker_lives(demo: Demo, database: psycopg.Connection) -> None:
    for worker in demo.status()["workers"]:
        kill([worker["pid"], *worker["children"]])
    everything_is_stored_once(demo, database, "patient", record(demo, "patient"))
