"""Everything as `docker compose up` starts it: used, scaled under load, killed, restarted, watched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.client import a_view
from tests.compose.load import Load
from tests.compose.stack import Stack, missing
from tests.waiting import until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

#: RabbitMQ counts anew every 5 s; a worker that has to connect again backs off for up to 30.
BROKER_S = 30
RECONNECT_S = 60


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    if reason := missing():
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    stack = Stack()
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


@pytest.mark.timeout(900)  # the first test builds the image
def test_a_clip_is_read_and_a_view_becomes_a_row(stack: Stack) -> None:
    alice = stack.viewer("alice")
    clip = alice.get("/api/videos").json()["videos"][0]
    part = alice.get(clip["stream_url"], headers={"Range": "bytes=4-99"})
    assert part.status == 206
    assert part.headers["Content-Range"] == f"bytes 4-99/{clip['size_bytes']}"
    assert part.data.startswith(b"ftyp")  # MPEG-4, 4.3: the first box of a file says what it is

    alice.record([a_view(video_id=clip["id"], position_s=7.5)])

    # Two playbacks: reading with a token is one as well.
    until(lambda: len(alice.history()) == 2, BROKER_S, what="both playbacks in the history")
    assert {(item["title"], item["position_s"]) for item in alice.history()} == {
        (clip["title"], 7.5),
        (clip["title"], 0),
    }


def test_workers_scaled_and_killed_under_load_write_each_accepted_view_once(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(stored(stack))
    with Load(stack.ingest) as load:
        stack.scale(4)
        until(lambda: consumers(stack) == 4, BROKER_S, what="four consumers")
        kill_a_worker_that_holds_deliveries(stack)
        again = until(lambda: redelivered(stack), BROKER_S, what="a redelivery")
        stack.scale(2)
        until(lambda: len(stack.workers()) == 2 and consumers(stack) == 2, BROKER_S, what="two consumers")
        until(lambda: len(load.accepted) >= 5_000, 60, what="5,000 accepted views")

    accepted = set(load.accepted)
    until(lambda: missing_receipts(stack, load.accepted) == [], BROKER_S, what="every accepted view in the database")
    assert set(stored(stack)) - before == accepted
    # Each once: what was counted while writing is what is there.
    assert stack.psql("SELECT sum(events) = (SELECT count(*) FROM view_events) FROM playbacks") == ["t"]
    with capsys.disabled():
        print(f"{len(accepted):,} accepted = stored; {load.retries} retries; {len(again)} redelivered")  # noqa: T201


def test_flower_lists_the_workers_and_the_tasks(stack: Stack) -> None:
    until(lambda: stack.workers() <= (stack.flower("workers?refresh=1") or {}).keys(), BROKER_S, what="workers")
    stack.viewer("bob").record([a_view()])
    task = until(lambda: finished_tasks(stack), BROKER_S, what="a finished task")[0]
    assert task["name"] == "history.record_views"
    assert task["runtime"] > 0
    queues = {queue["name"] for queue in stack.flower("queues/length")["active_queues"]}
    assert queues == {"history"}


def test_worker_streaming_app_and_flower_come_back_after_a_restart_of_the_broker(stack: Stack) -> None:
    with Load(stack.ingest) as load:
        stack.compose("restart", "rabbitmq")
        back = datetime.now(UTC)
        known = len(load.accepted)
        until(lambda: len(load.accepted) > known, RECONNECT_S, what="views accepted again")

    until(lambda: missing_receipts(stack, load.accepted) == [], RECONNECT_S, what="every accepted view stored")
    until(lambda: consumers(stack) == len(stack.workers()), RECONNECT_S, what="every worker consuming again")
    carol = stack.viewer("carol")

    def seen_by_flower() -> list[dict[str, Any]]:
        carol.record([a_view()])
        return finished_tasks(stack, after=back)

    until(seen_by_flower, RECONNECT_S, what="Flower seeing tasks again", every_s=1)
    assert stack.psql("SELECT sum(events) = (SELECT count(*) FROM view_events) FROM playbacks") == ["t"]


def kill_a_worker_that_holds_deliveries(stack: Stack) -> None:
    """The others hold on to theirs until the table is free again."""
    with stack.locked("view_events"):
        # All of them, more than their two processes work on: RabbitMQ counted while the table was locked, not before.
        holding = until(lambda: held_by_all(stack), BROKER_S, what="deliveries held by every worker")
        worker = max(holding, key=lambda name: holding[name])
        stack.kill(worker.partition("@")[2])
        assert worker not in stack.workers()


def held_by_all(stack: Stack) -> dict[str, int]:
    holding = stack.holding()
    return holding if len(holding) == 4 and min(holding.values()) > 2 else {}


def redelivered(stack: Stack) -> list[dict[str, Any]]:
    """The batches that were committed on a delivery that the broker marked as not the first."""
    return [line for line in stack.commits() if line["redelivered"]]


def stored(stack: Stack) -> list[str]:
    return stack.psql("COPY (SELECT event_id FROM view_events) TO STDOUT")


def consumers(stack: Stack) -> int:
    """Of the queue `history`, as RabbitMQ last counted."""
    queue = stack.rabbitmq("queues/%2F/history") or {}
    return int(queue.get("consumers", 0))


def missing_receipts(stack: Stack, ids: list[str]) -> list[str]:
    """Which of these are not in the database, as the services themselves say."""
    lost: list[str] = []
    for start in range(0, len(ids), 10_000):
        answer = stack.ingest.post("/api/views/receipts", json={"event_ids": ids[start : start + 10_000]})
        lost += answer.json()["missing"] if answer.status == 200 else ["no answer"]
    return lost


def finished_tasks(stack: Stack, after: datetime | None = None) -> list[dict[str, Any]]:
    """Those that Flower received last, newest first; only those after a time, if one is given."""
    since = after.timestamp() if after else 0
    tasks = (stack.flower("tasks?state=SUCCESS&limit=50&sort_by=-received") or {}).values()
    return [task for task in tasks if (task["received"] or 0) > since]
