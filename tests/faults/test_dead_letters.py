"""What cannot be stored is dead-lettered with its reason, and nothing else is: not what was delivered along with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import amqp
import psutil
import psycopg
import pytest
import urllib3
from kombu import Connection

from flixtrail.commands.workers import addresses
from history_worker.store.retention import GRACE
from local import service_parts
from safe_consumer.dead_letter_queue import dead_letters
from service.confirming_connection import AWAY
from tests.conftest import Demo
from tests.demo import ROOT, environment, program
from tests.fakes import an_event, ids
from tests.faults.broker import frozen
from tests.waiting import until
from view_events.event import RETENTION, TASK, VERSION, ViewEvent, encode, first_id
from view_events.topology import ALONE, DEAD_LETTERS, HISTORY

pytestmark = pytest.mark.rabbitmq

#: Instead of 20, so that killers need not kill that often.
DELIVERY_LIMIT = 2


@pytest.fixture(scope="module")
def demo(rabbitmq_demo: Demo) -> Iterator[Demo]:
    """With workers that some events kill (proof/chaos/killing.py), and a low delivery limit."""
    limit(rabbitmq_demo, DELIVERY_LIMIT)
    restart_workers(rabbitmq_demo, "proof.chaos.killing")
    yield rabbitmq_demo
    limit(rabbitmq_demo, 20)
    restart_workers(rabbitmq_demo, "history_worker.app")


@pytest.fixture(autouse=True)
def _nothing_is_dead(demo: Demo) -> Iterator[None]:
    demo.settled()
    yield
    demo.cli("dead", "drop", "--all", "--yes")
    demo.settled()


@pytest.fixture
def database(demo: Demo) -> Iterator[psycopg.Connection]:
    with psycopg.connect(demo.status()["database"]["url"], autocommit=True) as connection:
        yield connection


def limit(demo: Demo, deliveries: int) -> None:
    broker = demo.running().document["broker"]
    policy = {"pattern": "^history$", "apply-to": "queues", "definition": {"delivery-limit": deliveries}}
    http = urllib3.PoolManager(headers=urllib3.make_headers(basic_auth=urllib3.util.parse_url(broker["url"]).auth))
    management = urllib3.util.parse_url(broker["management_url"])
    url = f"http://{management.netloc}/api/policies/{broker['url'].rpartition('/')[2]}/history"
    assert http.request("PUT", url, json=policy).status in {201, 204}


def restart_workers(demo: Demo, app: str) -> None:
    """Kill the workers; the supervisor starts them again with this Celery app."""
    running = demo.running()
    before = demo.status()["workers"]
    for worker in before:
        part = service_parts.worker(running.state, worker["name"], addresses(running))
        argv = tuple(app if argument == "history_worker.app" else argument for argument in part.argv)
        running.supervisor.add(replace(part, argv=argv, environment={**part.environment, "PYTHONPATH": str(ROOT)}))
    kill(demo)
    old = {worker["pid"] for worker in before}

    def new_ones_work() -> bool:
        pids = {worker["pid"] for worker in demo.status()["workers"]}
        return len(pids) == len(old) and not pids & old and running.queue().consumers() == len(old)

    until(new_ones_work, 30, what="the workers to be back")


def kill(demo: Demo) -> None:
    for worker in demo.status()["workers"]:
        for pid in (worker["pid"], *worker["children"]):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it went with its parent


# -- messages ---------------------------------------------------------------------------------------------


def body(events: object, version: object = VERSION) -> str:
    return json.dumps([[events], {"version": version}, {}])


def headers(**fields: Any) -> dict[str, Any]:
    return {"task": TASK, "id": str(uuid4()), "retries": 0, **fields}


def message(text: str | bytes, fields: dict[str, Any] | None, content_type: str | None = "application/json") -> Any:
    return amqp.Message(text, application_headers=fields, content_type=content_type, content_encoding="utf-8")


def a_batch(*events: ViewEvent) -> Any:
    return message(body(encode(events)), headers())


def publish(demo: Demo, messages: Sequence[Any], queue: str = HISTORY.name) -> None:
    with Connection(demo.status()["broker"]["url"], transport_options={"confirm_publish": True}) as connection:
        channel = connection.channel()
        for one in messages:
            one.properties["delivery_mode"] = 2
            channel.basic_publish(one, exchange="", routing_key=queue, mandatory=True)


def dead(demo: Demo) -> list[dict[str, Any]]:
    letters: list[dict[str, Any]] = json.loads(demo.cli("dead", "list", "--json"))["dead_letters"]
    return letters


def reasons(demo: Demo) -> Counter[str]:
    return Counter(letter["reason"] for letter in dead(demo))


def waiting(demo: Demo, queue: str) -> int:
    try:
        with Connection(demo.status()["broker"]["url"], connect_timeout=2) as connection:
            return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
    except AWAY:
        return -1


def dead_are(demo: Demo, count: int, timeout_s: float = 10) -> None:
    until(lambda: waiting(demo, DEAD_LETTERS.name) == count, timeout_s, what=f"{count} dead letters", every_s=0.1)


def stored(database: psycopg.Connection, events: Sequence[ViewEvent]) -> int:
    """How many of them; fails when one was counted twice."""
    playbacks = [str(event.playback_id) for event in events]
    row = database.execute(
        "SELECT (SELECT count(*) FROM view_events WHERE event_id = ANY(%s::uuid[])),"
        " (SELECT coalesce(sum(events), 0) FROM playbacks WHERE playback_id = ANY(%s::uuid[]))",
        [ids(events), playbacks],
    ).fetchone()
    assert row
    assert row[0] == row[1]
    return int(row[0])


def all_stored(database: psycopg.Connection, events: Sequence[ViewEvent], timeout_s: float = 15) -> None:
    until(lambda: stored(database, events) == len(events), timeout_s, what="all events to be stored")


@contextmanager
def held_back(demo: Demo, event: ViewEvent) -> Iterator[Callable[[], None]]:
    """Whoever writes this event waits until the yielded function is called."""
    with psycopg.connect(demo.status()["database"]["url"]) as connection:
        connection.execute(
            "INSERT INTO view_events SELECT %s, 'x', 'x', gen_random_uuid(), 'started', 0, NULL, now(), now()",
            [str(event.event_id)],
        )
        yield connection.rollback


# -- poison -----------------------------------------------------------------------------------------------


def test_poison_is_dead_lettered_with_its_reason_and_what_came_with_it_is_stored(
    demo: Demo, database: psycopg.Connection
) -> None:
    parents = [worker["pid"] for worker in demo.status()["workers"]]
    good = [an_event() for _ in range(12)]
    (one,) = encode([an_event()])
    publish(
        demo,
        [
            message(b"\xff\xfe{", headers()),
            message("hello", None, "text/plain"),
            message("hello", None, None),
            message('{"a": 1}', headers()),
            message(body([one]), headers(task=["x"])),
            message(body([one]), headers(timelimit="x")),
            message(body([one]), {"task": TASK}),
            message(body([one]), headers(task="history.forget")),
            message(body([one], VERSION + 1), headers()),
            message(body("events"), headers()),
            a_batch(*good[:4], an_event(viewer_id="nul\0"), *good[4:8]),
            message(body([*encode(good[8:]), {**one, "position_s": "far"}, 7]), headers()),
        ],
    )
    all_stored(database, good)
    dead_are(demo, 13)
    assert reasons(demo) == {
        "undecodable": 7,
        "unknown-task": 1,
        "unknown-version": 1,
        "no-event": 3,
        "database": 1,
    }
    assert [worker["pid"] for worker in demo.status()["workers"]] == parents, "poison killed a worker"


# -- killers ----------------------------------------------------------------------------------------------


def test_an_id_older_than_what_is_kept_is_dead_lettered_and_what_came_with_it_is_stored(
    demo: Demo, database: psycopg.Connection
) -> None:
    """It may have been stored and detached since then: stored anew, it would count twice."""
    edge = datetime.now(UTC) - RETENTION - GRACE
    old = an_event(event_id=first_id(edge - timedelta(seconds=1)))
    good = [an_event(), an_event(event_id=first_id(edge + timedelta(minutes=1)))]
    publish(demo, [a_batch(good[0], old, good[1])])
    dead_are(demo, 1)
    all_stored(database, good)
    assert stored(database, [old]) == 0
    (letter,) = dead(demo)
    assert (letter["reason"], letter["event_ids"]) == ("too-old", ids([old]))
    demo.cli("dead", "redrive", "--all")
    until(lambda: reasons(demo)["too-old"] == 1, what="it to be refused again")
    assert stored(database, [old]) == 0


def test_what_kills_a_child_takes_nothing_with_it(demo: Demo, database: psycopg.Connection) -> None:
    parents = [worker["pid"] for worker in demo.status()["workers"]]
    innocents = [an_event() for _ in range(60)]
    killer = an_event(viewer_id="killer-child-1")
    batches = [a_batch(innocent) for innocent in innocents]
    publish(demo, [*batches[:30], a_batch(killer), *batches[30:]])
    all_stored(database, innocents)
    dead_are(demo, 1, timeout_s=40)
    (letter,) = dead(demo)
    assert (letter["reason"], letter["event_ids"]) == ("delivery-limit", ids([killer]))
    assert [worker["pid"] for worker in demo.status()["workers"]] == parents, "a parent died with its child"
    assert waiting(demo, ALONE.name) == 0


def test_what_kills_workers_stays_dead_the_second_time(demo: Demo, database: psycopg.Connection) -> None:
    killer, innocents = an_event(viewer_id="killer-parent-1"), [an_event() for _ in range(20)]
    publish(demo, [a_batch(killer), *(a_batch(innocent) for innocent in innocents)])
    dead_are(demo, 1, timeout_s=90)
    all_stored(database, innocents, timeout_s=30)
    (letter,) = dead(demo)
    assert (letter["reason"], letter["event_ids"]) == ("delivery-limit", ids([killer]))
    assert "alone" in letter["detail"]


def test_innocents_that_reach_the_limit_with_their_workers_are_stored(demo: Demo, database: psycopg.Connection) -> None:
    blocked = an_event()
    innocents = [an_event() for _ in range(20)]
    with held_back(demo, blocked) as let_go:
        publish(demo, [a_batch(blocked, innocent) for innocent in innocents])
        until(lambda: given_up_after_another_crash(demo), 60, what="the broker to give them up", every_s=0.1)
        until(lambda: waiting(demo, ALONE.name) > 0, 10, what="them to wait for their try", every_s=0.1)
        let_go()
    all_stored(database, [blocked, *innocents], timeout_s=40)
    until(lambda: waiting(demo, ALONE.name) == 0, 20, what="no more to be tried", every_s=0.1)
    demo.settled()
    assert dead(demo) == []


def given_up_after_another_crash(demo: Demo) -> bool:
    """Kills the workers, if all messages that are still in `history` are held by them: delivered or ahead of it."""
    figures = demo.running().queue().figures()
    if figures.ready == 0 and any(figures.unacked_by_worker.values()):
        kill(demo)
    left = figures.ready + sum(figures.unacked_by_worker.values())
    return left == 0 and waiting(demo, ALONE.name) > 0


# -- the command line -------------------------------------------------------------------------------------


def test_what_is_redriven_twice_is_stored_once(demo: Demo, database: psycopg.Connection) -> None:
    events = [an_event() for _ in range(30)]
    # Everything is there twice, as after a crash between the copy and the acknowledgement.
    publish(demo, [a_batch(*events[at : at + 3]) for at in range(0, 30, 3)] * 2, DEAD_LETTERS.name)
    assert "redriven: 20 dead letters" in demo.cli("dead", "redrive", "--all")
    all_stored(database, events)
    demo.settled()
    assert waiting(demo, DEAD_LETTERS.name) == 0


def test_dead_letters_are_listed_shown_redriven_and_dropped(demo: Demo, database: psycopg.Connection) -> None:
    good = an_event()
    letter, another = a_batch(good), message(b"\xff", None, None)
    publish(demo, [letter, another], DEAD_LETTERS.name)
    letter_id = letter.properties["application_headers"]["id"]
    for _ in range(5):
        listed = demo.cli("dead", "list")
    assert letter_id[:8] in listed
    assert listed.endswith("2 dead letters: 1 failed, 1 undecodable\n")
    assert str(good.event_id) in demo.cli("dead", "show", letter_id[:8])
    assert "no dead letter 'nonsense'" in demo.cli("dead", "show", "nonsense", status=1)
    demo.cli("dead", "redrive", status=2)
    demo.cli("dead", "drop", "--reason", "nonsense", "--yes", status=1)
    demo.cli("dead", "redrive", letter_id)
    all_stored(database, [good])
    assert "dropped: 1 dead letter" in demo.cli("dead", "drop", "--reason", "undecodable", "--yes")
    assert demo.cli("dead", "list") == "0 dead letters\n"


def test_many_that_are_dropped_at_once_do_not_come_back(demo: Demo) -> None:
    for _ in range(3):
        publish(demo, [message(b"\xff%d" % number, None, None) for number in range(150)], DEAD_LETTERS.name)
        assert "dropped: 150 dead letters" in demo.cli("dead", "drop", "--all", "--yes")
        assert waiting(demo, DEAD_LETTERS.name) == 0


def test_a_broker_that_dies_while_messages_are_redriven_loses_none(demo: Demo, database: psycopg.Connection) -> None:
    events = [an_event() for _ in range(1000)]
    publish(demo, [a_batch(event) for event in events], DEAD_LETTERS.name)
    with subprocess.Popen(
        [*program(), "dead", "redrive", "--all"],
        env=environment(AMQP_URL=demo.status()["broker"]["url"]),
        stderr=subprocess.PIPE,
        text=True,
    ) as redriving:
        until(lambda: stored(database, events) > 100, 20, what="some to be redriven")
        psutil.Process(demo.status()["broker"]["pid"]).kill()
        _, said = redriving.communicate(timeout=20)
    assert redriving.returncode == 1
    assert "Nothing is lost" in said
    demo.settled()
    assert stored(database, events) < len(events)
    demo.cli("dead", "redrive", "--all")
    all_stored(database, events, timeout_s=30)


def test_a_broker_that_says_nothing_in_the_end_is_not_taken_to_have_heard_everything(demo: Demo) -> None:
    publish(demo, [message(b"\xff", None, None)], DEAD_LETTERS.name)
    broker = demo.status()["broker"]
    with ExitStack() as reader:
        reading = reader.enter_context(dead_letters(broker["url"]))
        (letter,) = reading.read(1)
        with frozen(broker["pid"]):
            reading.drop(letter)
            with pytest.raises(AWAY):
                reader.close()
