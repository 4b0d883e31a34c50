"""Questions to a stack: what was accepted, what is stored, who consumes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.client import Client
from tests.compose.stack import Stack
from tests.waiting import until

#: RabbitMQ counts anew every 5 s; a service that has to connect again takes a few.
BROKER_S = 30
RECONNECT_S = 60


def stored(stack: Stack) -> list[str]:
    return stack.psql("COPY (SELECT event_id FROM view_events) TO STDOUT")


def watched(viewer: Client, **fields: str) -> list[dict[str, Any]]:
    """The viewer's history; empty while the history API is away, as it is for a moment after a start."""
    answer = viewer.get("/api/history", None, **fields)
    assert answer.status in {200, 503}, (answer.status, answer.data)
    items: list[dict[str, Any]] = answer.json()["items"] if answer.status == 200 else []
    return items


def counted_once(stack: Stack) -> bool:
    """Each once: what was counted while writing is what is there."""
    return stack.psql("SELECT sum(events) = (SELECT count(*) FROM view_events) FROM playbacks") == ["t"]


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


def wait_until_all_is_stored(stack: Stack, ids: list[str], within_s: float = RECONNECT_S) -> None:
    what = "every accepted view in the database"
    until(lambda: missing_receipts(stack, ids) == [], within_s, what=what, every_s=0.5)
    assert counted_once(stack)


def redelivered(stack: Stack) -> list[dict[str, Any]]:
    """The batches that were committed on a delivery that the broker marked as not the first."""
    return [line for line in stack.commits() if line["redelivered"]]


def held_by_all(stack: Stack, workers: int) -> dict[str, int]:
    """What each worker holds, once each holds more than its two processes work on; else nothing."""
    holding = stack.holding()
    return holding if len(holding) == workers and min(holding.values()) > 2 else {}


def finished_tasks(stack: Stack, after: datetime | None = None) -> list[dict[str, Any]]:
    """Those that Flower received last, newest first; only those after a time, if one is given."""
    since = after.timestamp() if after else 0
    tasks = (stack.flower("tasks?state=SUCCESS&limit=50&sort_by=-received") or {}).values()
    return [task for task in tasks if (task["received"] or 0) > since]
