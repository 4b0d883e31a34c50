"""A viewer is erased while their views are on their way: none of them appears, whatever way they take.

Beside them somebody else's views travel the same way and arrive. Another way: one more function of `WAYS`.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from uuid import uuid4

import psycopg
import pytest
from kombu import Connection

from flixtrail.commands.workers import signal_worker
from history_worker.store.erasure import erase
from local.errors import BrokerUnreachable
from service.database import connect
from tests.client import Client, a_view
from tests.conftest import Demo
from tests.faults.broker import frozen
from tests.faults.test_worker_killed import held_back, kill, writers_waiting
from tests.waiting import until
from view_events import topology

pytestmark = pytest.mark.rabbitmq

EVENTS = 20
#: What a worker logs of a message.
WRITTEN = re.compile(r"committed .*?events=(\d+).*?stored=(\d+)")
ANSI = re.compile(r"\x1b\[[0-9;]*m")

Record = Callable[[], list[str]]


@pytest.fixture
def demo(rabbitmq_demo: Demo) -> Iterator[Demo]:
    yield rabbitmq_demo
    rabbitmq_demo.settled()


@pytest.fixture
def database(demo: Demo) -> Iterator[psycopg.Connection]:
    with psycopg.connect(demo.status()["database"]["url"], autocommit=True) as connection:
        yield connection


# -- the ways ----------------------------------------------------------------------------------------------------------


@contextmanager
def no_workers(demo: Demo) -> Iterator[None]:
    running = demo.running()
    names = [worker.name for worker in running.workers()]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: demo.cli("workers", "stop", name), names))
    try:
        yield
    finally:
        for name in names:
            running.supervisor.start(name)


@contextmanager
def waiting_in_the_queue(demo: Demo, record: Record) -> Iterator[None]:
    with no_workers(demo):
        record()
        yield


@contextmanager
def waiting_in_the_outbox(demo: Demo, record: Record) -> Iterator[None]:
    with frozen(demo.status()["broker"]["pid"]):
        record()
        assert demo.outbox() >= 2 * EVENTS
        yield


@contextmanager
def held_by_workers_that_are_then_killed(demo: Demo, record: Record) -> Iterator[None]:
    workers = demo.running().workers()
    before = demo.redelivered()
    for worker in workers:
        signal_worker(worker, signal.SIGSTOP)
    record()
    until(lambda: unacked(demo) >= 2, 20, what="the frozen workers to hold the messages")
    yield
    for worker in workers:
        signal_worker(worker, signal.SIGKILL)
    until(lambda: demo.redelivered() >= before + 2, 40, what="the messages to come again")


@contextmanager
def redriven_from_the_dead_letters(demo: Demo, record: Record) -> Iterator[None]:
    with no_workers(demo), Connection(demo.status()["broker"]["url"]) as connection:
        ids = record()
        history = topology.HISTORY(connection.channel())
        rejected: list[None] = []

        def reject() -> bool:
            message = history.get()
            if message:
                rejected.append(message.reject())
            return len(rejected) >= 2

        until(reject, what="both messages to be there")
    letters: list[str] = []

    def dead() -> bool:
        known = json.loads(demo.cli("dead", "list", "--json"))["dead_letters"]
        letters[:] = [letter["id"] for letter in known if set(letter["event_ids"]) & set(ids)]
        return len(letters) >= 2

    until(dead, what="both to be dead letters")
    yield
    demo.cli("dead", "redrive", *letters)


Way = Callable[[Demo, Record], AbstractContextManager[None]]
WAYS: list[Way] = [
    waiting_in_the_queue,
    waiting_in_the_outbox,
    held_by_workers_that_are_then_killed,
    redriven_from_the_dead_letters,
]


# -- what is looked at -------------------------------------------------------------------------------------------------


def unacked(demo: Demo) -> int:
    try:
        return demo.running().queue().figures().unacked
    except BrokerUnreachable:
        return 0


def left(database: psycopg.Connection, viewer_id: str) -> int:
    """Rows of a viewer: their events and what is derived from them."""
    query = (
        "SELECT (SELECT count(*) FROM view_events WHERE viewer_id = %(id)s)"
        " + (SELECT count(*) FROM playbacks WHERE viewer_id = %(id)s)"
    )
    row = database.execute(query, {"id": viewer_id}).fetchone()
    assert row
    return int(row[0])


def not_stored(demo: Demo) -> int:
    """Events that arrived at a worker so far and gave no row."""
    logs = (path.read_text(errors="replace") for path in (demo.state / "log").glob("history-worker-*.log"))
    found = (WRITTEN.findall(ANSI.sub("", log)) for log in logs)
    return sum(int(events) - int(stored) for lines in found for events, stored in lines)


def record(demo: Demo, viewer_id: str, number: int = EVENTS, *first: dict[str, object]) -> list[str]:
    client = Client(demo.url, demo.token(viewer_id))
    return client.record([*first, *(a_view() for _ in range(number - len(first)))])


# -- the tests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_views_on_their_way_do_not_appear_after_their_viewer_was_erased(
    demo: Demo, database: psycopg.Connection, way: Way
) -> None:
    erased, other = f"erased-{uuid4()}", f"other-{uuid4()}"
    record(demo, erased, 1)
    until(lambda: left(database, erased) == 2, what="a first view to be stored")
    before = not_stored(demo)
    with way(demo, lambda: record(demo, erased) + record(demo, other)):
        said = demo.cli("erase", erased, "--yes")
        assert said == (
            f"erased {erased}: 1 view of 1 playback. "
            "Views of theirs that are still on their way are dropped when they arrive.\n"
        )
        assert left(database, erased) == 0
    until(lambda: left(database, other) == 2 * EVENTS, 40, what="the other viewer's views to be stored")
    until(lambda: not_stored(demo) >= before + EVENTS, 40, what="the erased viewer's views to arrive")
    demo.settled()
    assert left(database, erased) == 0
    client = Client(demo.url, demo.token(erased))
    assert client.history() == []
    again = a_view()
    client.record([again])
    until(lambda: left(database, erased), what="a view from after the erase to be stored")
    assert [item["playback_id"] for item in client.history()] == [again["playback_id"]]


def test_views_of_a_worker_that_was_killed_after_it_had_looked_do_not_appear(
    demo: Demo, database: psycopg.Connection
) -> None:
    """Its transaction outlives it for a moment, with the lock: the erase waits for it."""
    before, viewer_id, blocked = not_stored(demo), f"erased-{uuid4()}", a_view()
    engine = connect(demo.status()["database"]["url"], pool_size=1)
    with held_back(demo, blocked["event_id"]) as let_go, ThreadPoolExecutor(1) as pool:
        record(demo, viewer_id, EVENTS, blocked)
        until(lambda: writers_waiting(database), what="a worker to have looked")
        for worker in demo.status()["workers"]:
            kill([worker["pid"], *worker["children"]])
        # Not with the command line: by the time that it has started, the transaction may be gone.
        erasing = pool.submit(erase, engine, viewer_id)
        until(lambda: writers_waiting(database) > 1 or erasing.done(), what="the erase to wait")
        assert not erasing.done()
        let_go()
        assert erasing.result(30).events == 0
    engine.dispose()
    until(lambda: not_stored(demo) >= before + EVENTS, 40, what="the redelivery to be dropped")
    assert left(database, viewer_id) == 0


def test_erasing_twice_and_erasing_nobody(demo: Demo, database: psycopg.Connection) -> None:
    viewer_id = f"erased-{uuid4()}"
    record(demo, viewer_id, 3)
    until(lambda: left(database, viewer_id) == 6, what="the views to be stored")
    assert demo.cli("erase", viewer_id, "--yes").startswith(f"erased {viewer_id}: 3 views of 3 playbacks.")
    assert demo.cli("erase", viewer_id, "--yes").startswith(f"erased {viewer_id}: 0 views of 0 playbacks.")
    assert "is no viewer" in demo.cli("erase", "", status=2)
    assert "is no viewer" in demo.cli("erase", "a\tb", status=2)
