"""What a stranger sends to a worker changes nothing, runs nothing and delays nobody, and no accepted view is lost."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from time import monotonic
from typing import Any
from uuid import uuid4

import amqp
import psycopg
import pytest
from celery.worker.control import Panel
from kombu import Connection

from tests.client import Client, a_view
from tests.conftest import Demo
from tests.fakes import an_event, ids
from tests.waiting import until
from view_events.event import TASK, VERSION, ViewEvent, encode
from view_events.topology import DEAD_LETTERS, HISTORY

pytestmark = pytest.mark.rabbitmq

BOMB = b"x" * 1_000


@pytest.fixture
def demo(rabbitmq_demo: Demo) -> Iterator[Demo]:
    rabbitmq_demo.settled()
    yield rabbitmq_demo
    with Connection(rabbitmq_demo.status()["broker"]["url"]) as connection:
        connection.default_channel.queue_purge(DEAD_LETTERS.name)


@pytest.fixture
def broker(demo: Demo) -> Iterator[Connection]:
    with Connection(demo.status()["broker"]["url"], transport_options={"confirm_publish": True}) as connection:
        yield connection


@pytest.fixture
def database(demo: Demo) -> Iterator[psycopg.Connection]:
    with psycopg.connect(demo.status()["database"]["url"], autocommit=True) as connection:
        yield connection


def publish(
    broker: Connection, body: bytes | str, headers: dict[str, Any], exchange: str = "", **properties: Any
) -> None:
    message = amqp.Message(
        body,
        application_headers=headers,
        **{"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2, **properties},
    )
    routing_key = "" if exchange else HISTORY.name
    broker.default_channel.basic_publish(message, exchange=exchange, routing_key=routing_key)


def headers(**fields: Any) -> dict[str, Any]:
    return {"task": TASK, "id": str(uuid4()), **fields}


def body(events: Any, third: Any = None) -> str:
    return json.dumps([[events], {"version": VERSION}, {} if third is None else third])


def stored(database: psycopg.Connection, events: list[ViewEvent]) -> int:
    row = database.execute(
        "SELECT count(*) FROM view_events WHERE event_id = ANY(%s::uuid[])", [ids(events)]
    ).fetchone()
    assert row
    return int(row[0])


def waiting(broker: Connection, queue: str) -> int:
    return int(broker.default_channel.queue_declare(queue, passive=True).message_count)


def until_dead(broker: Connection, count: int) -> None:
    """Wait for so many dead letters."""
    until(lambda: waiting(broker, DEAD_LETTERS.name) == count, 10, what=f"{count} dead letters", every_s=0.05)


def reasons_of(demo: Demo, broker: Connection, count: int) -> list[str]:
    """The reasons of the dead letters, once there are so many."""
    until_dead(broker, count)
    assert waiting(broker, HISTORY.name) == 0
    return sorted(letter["reason"] for letter in json.loads(demo.cli("dead", "list", "--json"))["dead_letters"])


def all_stored(database: psycopg.Connection, events: list[ViewEvent], timeout_s: float = 15) -> None:
    until(lambda: stored(database, events) == len(events), timeout_s, what="all events to be stored", every_s=0.02)


def test_no_command_of_celery_changes_anything(demo: Demo, broker: Connection, database: psycopg.Connection) -> None:
    """Every command that Celery knows, with arguments that hurt: the ids of views on their way are revoked by it."""
    before = demo.status()["workers"]
    task_ids = [str(uuid4()) for _ in range(20)]
    events = [an_event() for _ in task_ids]
    hurting = {
        "ids": task_ids,
        "task_id": task_ids,
        "revoked": task_ids,
        "from_node": "stranger@nowhere",
        "headers": {"id": task_ids},
        "terminate": True,
        "signal": "SIGKILL",
        "task_name": TASK,
        "rate_limit": "1/d",
        "hard": 0.001,
        "soft": 0.001,
        "n": 10,
        "max": 0,
        "min": 0,
        "queue": HISTORY.name,
        "msg": "stranger",
        "id": "1",
        "topic": "task",
        "action": {"task": TASK, "args": [[]]},
    }
    for name, about in Panel.meta.items():
        named = {word for word in hurting if word in (Panel.data[name].__code__.co_varnames)}
        for arguments in ({}, {word: hurting[word] for word in named}, hurting):
            for method in filter(None, (name, about.alias)):
                publish(
                    broker,
                    json.dumps({"method": method, "arguments": arguments, "destination": None}),
                    {"clock": 2**63 - 1, "expires": 0},
                    exchange="celery.pidbox",
                )
    for task_id, event in zip(task_ids, events, strict=True):
        publish(broker, body(encode([event])), headers(id=task_id, stamped_headers=["id"], stamps={"id": [task_id]}))
    all_stored(database, events)
    assert demo.status()["workers"] == before
    assert demo.running().queue().consumers() == len(before)


QUESTIONS = [
    b"\xff{",
    b"[]",
    b"7",
    json.dumps({"method": ["ping"], "destination": 5}).encode(),
    json.dumps({"method": "ping", "pattern": "(a+)+$", "matcher": "pcre"}).encode(),
    json.dumps({"method": "ping", "ticket": 1, "reply_to": {"exchange": "", "routing_key": "history"}}).encode(),
    json.dumps({"method": "ping", "ticket": "t", "reply_to": {"exchange": "views", "routing_key": "view.x"}}).encode(),
    json.dumps(
        {"method": "ping", "ticket": "t", "reply_to": {"exchange": "views.dead", "routing_key": "views.dead"}}
    ).encode(),
    json.dumps({"method": "ping", "ticket": "t", "reply_to": "reply.celery.pidbox"}).encode(),
    json.dumps(
        {
            "method": "ping",
            "ticket": "t" * 300,
            "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "x" * 300},
        }
    ).encode(),
]


def test_a_hostile_question_disturbs_no_worker(demo: Demo, broker: Connection, database: psycopg.Connection) -> None:
    before = connections(broker, demo)
    for question in QUESTIONS * 5:
        publish(broker, question, {"clock": "x", "compression": "zlib"}, exchange="celery.pidbox")
        publish(broker, question, {"clock": "x"}, exchange="celery.pidbox")
        publish(broker, question, {}, exchange="celery.pidbox", content_type="application/x-python-serialize")
    events = [an_event() for _ in range(5)]
    publish(broker, body(encode(events)), headers())
    all_stored(database, events)
    assert waiting(broker, DEAD_LETTERS.name) == 0
    assert connections(broker, demo) == before, "a worker connected anew"


def connections(_broker: Connection, demo: Demo) -> int:
    """How often the workers of a demo have connected."""
    logs = (demo.state / "log").glob("history-worker*.log")
    return sum(log.read_text(errors="replace").count("Connected to amqp") for log in logs)


CALLS: list[Any] = [
    {"callbacks": [{"task": "history.record_views", "args": [[]], "options": {"queue": "views.dead"}}]},
    {"errbacks": [{"task": "celery.accumulate"}]},
    {"chain": [{"task": "celery.chord_unlock"}]},
    {"chord": {"task": "celery.backend_cleanup"}},
    {"is_eager": True},
    [],
    "x",
]


def test_a_message_that_calls_other_tasks_is_a_dead_letter(demo: Demo, broker: Connection) -> None:
    for third in CALLS:
        publish(broker, body(encode([an_event()]), third), headers())
    assert reasons_of(demo, broker, len(CALLS)) == ["calls-others"] * len(CALLS)


def test_no_task_but_ours_is_run(demo: Demo, broker: Connection) -> None:
    others = ["celery.chord_unlock", "celery.accumulate", "celery.starmap", "history.record_messages"]
    for task in others:
        publish(broker, body(encode([an_event()])), headers(task=task))
    assert reasons_of(demo, broker, len(others)) == ["unknown-task"] * len(others)


@pytest.mark.usefixtures("demo")
def test_headers_that_celery_would_act_upon_change_nothing(broker: Connection, database: psycopg.Connection) -> None:
    signature = [{"task": TASK, "args": [["x"]], "kwargs": {}, "options": {}}]
    hostile: dict[str, Any] = {
        "callbacks": signature,
        "errbacks": signature,
        "chain": signature,
        "chord": signature[0],
        "group": "x",
        "groups": ["x"],
        "root_id": 5,
        "parent_id": [1],
        "shadow": "history.record_messages",
        "retries": "x",
        "ignore_result": False,
        "replaced_task_nesting": "x",
        "stamped_headers": 7,
        "stamps": [1],
        "argsrepr": "\x1b[2J" * 100,
        "kwargsrepr": 5,
        "origin": {"a": 1},
        "is_eager": True,
        "called_directly": True,
        "redriven": "x",
        "x-delivery-count": "x",
    }
    events = [an_event() for _ in hostile]
    for event, (name, value) in zip(events, hostile.items(), strict=True):
        publish(
            broker, body(encode([event])), headers(**{name: value}), reply_to="history", correlation_id="x", priority=9
        )
    everything = an_event()
    publish(broker, body(encode([everything])), headers(**hostile))
    all_stored(database, [*events, everything])
    assert waiting(broker, DEAD_LETTERS.name) == 0
    assert waiting(broker, HISTORY.name) == 0


@pytest.mark.usefixtures("demo")
def test_refused_events_with_hostile_headers_hold_nobody_up(broker: Connection, database: psycopg.Connection) -> None:
    fields: list[dict[str, Any]] = [
        {"redriven": "x"},
        {"redriven": 2**62},
        {"root_id": "\ud800"},
        {"root_id": {"a": []}},
    ]
    for field in fields * 8:
        publish(broker, body([{"no": "event"}]), headers(**field))
    event, began = an_event(), monotonic()
    publish(broker, body(encode([event])), headers())
    all_stored(database, [event])
    until_dead(broker, 8 * len(fields))
    assert monotonic() - began < 10, "without care, each takes 15 s"


@pytest.mark.usefixtures("demo")
def test_many_refused_events_of_one_message_share_dead_letters(
    broker: Connection, database: psycopg.Connection
) -> None:
    good = an_event()
    publish(broker, body([*encode([good]), *({"no": number} for number in range(20_000))]), headers())
    all_stored(database, [good])
    until_dead(broker, 20)


@pytest.mark.usefixtures("demo")
def test_forged_deaths_do_not_end_dead_lettering(broker: Connection) -> None:
    """RabbitMQ 3.10 would never dead-letter anything of the queue again."""
    forgeries: list[dict[str, Any]] = [
        {"x-death": ["lol"]},
        {"x-death": "lol"},
        {"x-death": [{"count": "many", "reason": "rejected", "queue": "history"}]},
        {"x-death": {"a": 1}},
        {"x-first-death-reason": 5},
    ]
    for count, forged in enumerate(forgeries, 1):
        publish(broker, body("no events"), headers(**forged))
        publish(broker, "no JSON", headers())
        until_dead(broker, 2 * count)


@pytest.mark.usefixtures("demo")
def test_a_compressed_message_is_not_decompressed(broker: Connection) -> None:
    publish(broker, BOMB, headers(compression="application/x-gzip"))
    until_dead(broker, 1)


class RawMessage(amqp.Message):  # type: ignore[misc]
    """A message whose properties are these bytes."""

    raw = b""

    def _serialize_properties(self) -> bytes:
        return self.raw


#: A header with a time past the year 9999, and an id that is not UTF-8: py-amqp cannot decode them.
UNREADABLE = [
    struct.pack(">HI", 1 << 13, 11) + b"\1xT" + struct.pack(">Q", 2**50),
    struct.pack(">H", 1 << 10) + b"\1\xff",
]


@pytest.mark.parametrize("exchange", ["", "celery.pidbox"])
def test_properties_that_cannot_be_decoded_end_no_worker(demo: Demo, broker: Connection, exchange: str) -> None:
    before = [worker["pid"] for worker in demo.status()["workers"]]
    for raw in UNREADABLE:
        message = RawMessage(f"{uuid4()}")
        message.raw = raw
        broker.default_channel.basic_publish(message, exchange=exchange, routing_key="" if exchange else HISTORY.name)
    client = Client(demo.url, demo.token(f"after-{uuid4()}"))
    client.record([a_view() for _ in range(5)])
    until(demo.broker_is_empty, 20, what="the queue to be empty")
    assert [worker["pid"] for worker in demo.status()["workers"]] == before
    if not exchange:
        listed = demo.cli("dead", "list")
        assert listed.count("undecodable") >= len(UNREADABLE), listed
