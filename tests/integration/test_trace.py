"""One `grep` tells what became of a view, and `flixtrail trace` does so in words."""

from __future__ import annotations

import json
import secrets
from typing import Any
from uuid import uuid4

import amqp
import psycopg
import pytest
from kombu import Connection

from tests.client import Client, a_view
from tests.conftest import Demo
from tests.fakes import an_event
from tests.faults.accepting import accepted
from tests.faults.broker import frozen
from tests.faults.database import refusing
from tests.waiting import until
from view_events.event import TASK, VERSION, ViewEvent, encode
from view_events.topology import HISTORY


@pytest.fixture
def trace() -> str:
    return secrets.token_hex(16)


def traceparent(trace: str) -> dict[str, str]:
    return {"traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}


def grep(demo: Demo, words: str) -> list[str]:
    logs = sorted((demo.state / "log").glob("*.log"))
    return [line for log in logs for line in log.read_text(errors="replace").splitlines() if words in line]


def told(demo: Demo, event_id: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(demo.cli("trace", event_id, "--json"))
    return document


def steps(demo: Demo, event_id: str) -> list[str]:
    return [step["what"] for step in told(demo, event_id)["story"]]


def publish(demo: Demo, *events: ViewEvent) -> None:
    """Past the streaming app, which would refuse them."""
    body = json.dumps([[encode(events)], {"version": VERSION}, {}])
    headers = {"task": TASK, "id": str(uuid4()), "retries": 0}
    with Connection(demo.status()["broker"]["url"], transport_options={"confirm_publish": True}) as connection:
        connection.channel().basic_publish(
            amqp.Message(body, application_headers=headers, content_type="application/json", content_encoding="utf-8"),
            exchange="",
            routing_key=HISTORY.name,
        )


def test_a_grep_for_the_trace_of_a_request_finds_its_way(demo: Demo, trace: str) -> None:
    views = [a_view() for _ in range(3)]
    client = Client(demo.url, demo.token("traced"))
    answer = client.post("/api/views", json=views, headers=traceparent(trace))
    assert (answer.status, answer.headers["Trace-Id"]) == (202, trace)
    until(lambda: any("committed" in line for line in grep(demo, trace)), what="them to be committed")
    published, committed = sorted(grep(demo, trace), key=lambda line: "committed" in line)
    assert "published" in published
    assert all(view["event_id"] in published for view in views)
    event_id = views[1]["event_id"]
    assert steps(demo, event_id) == ["recorded", "published", "committed"]
    document = told(demo, event_id)
    assert document["trace_ids"] == [trace]
    (task_id,) = document["task_ids"]
    assert task_id in published
    assert task_id in committed
    assert document["stored"]["viewer_id"] == "traced"
    assert document["playback"]["events"] == 1
    said = demo.cli("trace", event_id)
    assert said.splitlines()[0] == f"view {event_id}, trace {trace}"
    assert said.splitlines()[-1].startswith("stored; playback ")


def test_a_view_that_nobody_knows_ends_with_1_and_says_so(demo: Demo) -> None:
    assert "nothing is known of it" in demo.cli("trace", str(uuid4()), status=1)
    assert "is not a valid UUID" in demo.cli("trace", "nonsense", status=2)


@pytest.mark.rabbitmq
def test_a_view_that_went_through_the_outbox_tells_so(rabbitmq: Demo) -> None:
    client = Client(rabbitmq.url, rabbitmq.token("patient"))
    with frozen(rabbitmq.status()["broker"]["pid"]):
        event_ids = [accepted(client, a_view()) for _ in range(4)]
        until(rabbitmq.outbox, what="them to lie in the outbox")
        document = told(rabbitmq, event_ids[-1])
        assert [step["what"] for step in document["story"]] == ["stored in the outbox"]
        assert document["stored"] is None
        assert "it is sent when the broker is back" in document["conclusion"]
    until(lambda: told(rabbitmq, event_ids[-1])["stored"], 40, what="it to be stored", every_s=0.5)
    # Who sent it hears of its confirm, and says so, when a worker may have it already.
    until(lambda: "sent from the outbox" in steps(rabbitmq, event_ids[-1]), what="its sender to say so", every_s=0.1)
    story = steps(rabbitmq, event_ids[-1])
    assert story[:2] == ["recorded", "stored in the outbox"]
    assert [step.split(", ")[-1] for step in story[2:]] in (
        ["sent from the outbox", "committed"],
        ["committed", "sent from the outbox"],
    )


@pytest.mark.rabbitmq
def test_a_refused_view_tells_why_and_where_it_is(rabbitmq: Demo, trace: str) -> None:
    refused = an_event(viewer_id="nul\0", trace_id=trace)
    innocent = an_event(trace_id=trace)
    publish(rabbitmq, innocent, refused)
    try:
        until(lambda: grep(rabbitmq, str(refused.event_id)), what="it to be refused")
        until(lambda: any("committed" in line for line in grep(rabbitmq, trace)), what="the other one to be committed")
        (line,) = grep(rabbitmq, str(refused.event_id))
        assert "event refused, dead-lettered" in line
        assert f"trace_id={trace}" in line
        assert " task_id=" in line
        document = told(rabbitmq, str(refused.event_id))
        assert [step["what"] for step in document["story"]] == ["refused, dead-lettered", "committed"]
        assert document["conclusion"].startswith("not stored: refused (database: 22P05")
        assert document["conclusion"].endswith("look into `flixtrail dead list`")
        assert told(rabbitmq, str(innocent.event_id))["conclusion"].startswith("stored; playback ")
    finally:
        rabbitmq.cli("dead", "drop", "--all", "--yes")


@pytest.mark.rabbitmq
def test_lines_about_a_message_that_is_held_name_its_task(rabbitmq: Demo, trace: str) -> None:
    client = Client(rabbitmq.url, rabbitmq.token("held"))
    with refusing(rabbitmq):
        view = a_view()
        until(
            lambda: client.post("/api/views", json=view, headers=traceparent(trace)).status == 202,
            what="it to be accepted",
        )
        (published,) = until(lambda: grep(rabbitmq, trace), what="it to be published")
        task_id = published.partition("task_id=")[2].partition(" ")[0]
        until(
            lambda: any("the message stays unacknowledged" in line for line in grep(rabbitmq, task_id)),
            what="it to be held",
        )
        answer = rabbitmq.cli("trace", view["event_id"])
        assert "from the logs only: the database does not answer" in answer
    until(lambda: "committed" in steps(rabbitmq, view["event_id"]), 20, what="it to be committed", every_s=0.5)
    assert steps(rabbitmq, view["event_id"])[:2] == ["recorded", "published"]


@pytest.mark.rabbitmq
def test_the_trace_is_not_stored(rabbitmq: Demo) -> None:
    with psycopg.connect(rabbitmq.status()["database"]["url"]) as database:
        row = database.execute("SELECT count(*) FROM information_schema.columns WHERE column_name LIKE 'trace%'")
        assert row.fetchone() == (0,)
