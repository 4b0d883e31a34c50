"""PostgreSQL killed, refusing, frozen, read-only, not migrated: workers keep their messages, and write them later."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager

import psycopg
import pytest

from local import service_parts
from tests.client import Client, a_view
from tests.conftest import Demo
from tests.faults import database
from tests.faults.accepting import accepted, stored_once
from tests.faults.broker import impatient
from tests.faults.workers import Management, logged, pids, with_settings
from tests.waiting import until

pytestmark = pytest.mark.rabbitmq

AWAY = "PostgreSQL is away; the message stays unacknowledged"
CANNOT = "PostgreSQL cannot take it; the message stays unacknowledged"
BACK = "PostgreSQL is back"
GAVE_BACK = "requeued all messages"
#: Within which PostgreSQL's return must be noticed.
NOTICED_S = 5
#: More than there are processes: some are tried again and again, and some are held ahead.
MESSAGES = 20

Fault = Callable[[Demo], AbstractContextManager[None]]


def stored(demo: Demo, ids: list[str]) -> bool:
    with psycopg.connect(demo.status()["database"]["url"], connect_timeout=2) as connection:
        row = connection.execute("SELECT count(*) FROM view_events WHERE event_id = ANY(%s::uuid[])", [ids]).fetchone()
    return row == (len(ids),)


def dead_letters(demo: Demo) -> set[str]:
    return {letter["id"] for letter in json.loads(demo.cli("dead", "list", "--json"))["dead_letters"]}


@pytest.mark.parametrize("fault", [database.killed, database.refusing, database.frozen, database.read_only])
def test_workers_hold_their_messages_while_postgresql_is_away(
    demo: Demo, client: Client, viewer_id: str, fault: Fault
) -> None:
    # Most processes then have a connection, and their own last statement behind them.
    ids = [accepted(client, a_view()) for _ in range(MESSAGES)]
    until(lambda: stored(demo, ids), what="everything to be written")
    redelivered, workers = demo.redelivered(), pids(demo)
    away, back = logged(demo, AWAY), logged(demo, BACK)
    processes = sum(len(children) for _, children in workers)
    with fault(demo):
        ids += [accepted(client, a_view()) for _ in range(MESSAGES)]
        # A frozen server answers neither yes nor no: a process itself has to give up. (One that was killed
        # may be back before all have noticed.)
        noticing = 1 if fault is database.killed else processes
        until(lambda: logged(demo, AWAY) - away >= noticing, 13, what="the workers to notice")
    until(lambda: stored(demo, ids), NOTICED_S, what="everything to be written")
    stored_once(demo, viewer_id, ids)
    # A line for each process at most, however often it tried and however many messages it had.
    assert 0 < logged(demo, AWAY) - away <= processes
    assert logged(demo, BACK) - back == logged(demo, AWAY) - away
    # Unacknowledged, not sent round in circles; and nobody died of it.
    assert demo.redelivered() == redelivered
    assert pids(demo) == workers


def test_what_is_no_fault_of_the_messages_dead_letters_none(demo: Demo, client: Client, viewer_id: str) -> None:
    """A table that a migration has not made yet: the messages wait for it."""
    cannot, redelivered, dead = logged(demo, CANNOT), demo.redelivered(), dead_letters(demo)
    with database.without_its_table(demo):
        ids = [accepted(client, a_view()) for _ in range(MESSAGES)]
        until(lambda: logged(demo, CANNOT) > cannot, what="the workers to notice")
        assert dead_letters(demo) == dead
    until(lambda: stored(demo, ids), NOTICED_S, what="everything to be written")
    stored_once(demo, viewer_id, ids)
    assert demo.redelivered() == redelivered
    assert dead_letters(demo) == dead


@pytest.mark.parametrize("fault", [database.refusing, database.frozen])
def test_a_worker_that_waits_for_postgresql_stops_when_it_is_told_to(
    demo: Demo, client: Client, viewer_id: str, fault: Fault
) -> None:
    supervisor, name = demo.running().supervisor, f"{service_parts.WORKER}1"
    log = demo.state / "log" / "supervisord.log"
    before = len(log.read_text())
    with fault(demo):
        ids = [accepted(client, a_view()) for _ in range(MESSAGES)]
        until(lambda: demo.running().queue().figures().unacked_by_worker.get(name), what="the worker to hold something")
        supervisor.stop(name)
        until(lambda: supervisor.status()[name].stopped, what="the worker to leave")
    # By itself. A worker that had not left would have been killed.
    assert f"stopped: {name} (exit status 0)" in log.read_text()[before:]
    supervisor.start(name)
    stored_once(demo, viewer_id, ids)


def test_what_was_held_for_too_long_goes_back_until_postgresql_is_there(
    demo: Demo, client: Client, viewer_id: str
) -> None:
    gave_back, redelivered = logged(demo, GAVE_BACK), demo.redelivered()
    with with_settings(demo, HOLD_S="1"):
        broker, workers = Management(demo), pids(demo)
        with database.refusing(demo):
            ids = [accepted(client, a_view()) for _ in range(MESSAGES)]
            until(lambda: logged(demo, GAVE_BACK) - gave_back == len(workers), what="each worker to lose patience")
            until(lambda: not broker.prefetches(), what="nobody to consume")
            # Nor does a new connection take anything.
            ready = logged(demo, "Connected to")
            for connection in broker.ask("/connections"):
                broker.close(connection["name"])
            until(lambda: logged(demo, "Connected to") - ready >= len(workers), what="the workers to connect again")
            until(lambda: demo.running().queue().figures().ready, what="what was held to wait for a worker")
            assert demo.running().queue().consumers() == 0
        until(lambda: stored(demo, ids), NOTICED_S, what="everything to be written")
        until(lambda: len(broker.prefetches()) == len(workers), what="every worker to consume")
        assert pids(demo) == workers
        assert logged(demo, GAVE_BACK) - gave_back == len(workers)
    assert demo.redelivered() > redelivered
    stored_once(demo, viewer_id, ids)


def test_a_worker_whose_channel_the_broker_closes_loses_nothing(demo: Demo, client: Client, viewer_id: str) -> None:
    """RabbitMQ before 4.3 closes the channel (406) when a message is held for longer than its `consumer_timeout`."""
    workers, dead = pids(demo), dead_letters(demo)
    with impatient(demo, seconds=2):
        demo.settled()
        closed = logged(demo, "PRECONDITION_FAILED")
        with database.refusing(demo):
            ids = [accepted(client, a_view()) for _ in range(MESSAGES)]
            until(lambda: logged(demo, "PRECONDITION_FAILED") > closed, 30, what="the broker to close a channel")
        until(lambda: stored(demo, ids), 30, what="everything to be written")
        assert pids(demo) == workers
    demo.settled()
    stored_once(demo, viewer_id, ids)
    assert dead_letters(demo) == dead
