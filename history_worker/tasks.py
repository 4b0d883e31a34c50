"""The task: write, commit, ack."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from time import monotonic
from typing import Any

import structlog
from celery import Task
from sqlalchemy import Engine
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from history_worker.app import app, settings
from history_worker.database import connect, is_outage
from history_worker.writer import write
from view_events.event import TASK, VERSION, decode

log = structlog.get_logger(__name__)

#: Pause between attempts while PostgreSQL is away: short at first (a restart takes a second), never so long that its
#: return goes unnoticed; random, so that workers do not come back all at once.
BACKOFF_S = {"multiplier": 0.1, "max": 3}


@app.task(name=TASK, bind=True)  # type: ignore[untyped-decorator]
def record_views(self: Task, events: Sequence[dict[str, Any]], version: int = VERSION) -> None:
    """Write the events of one message. Returning means committed.

    Celery acknowledges the message after this returns (`task_acks_late`): commit, then ack. A crash between the two
    means a redelivery, and the redelivery finds every id stored and changes nothing.

    While PostgreSQL is away the message stays held, unacknowledged. What can never be stored raises, and its message
    moves to the dead-letter queue.
    """
    started = monotonic()
    batch = decode(events, version)
    for attempt in Retrying(
        retry=retry_if_exception(is_outage),
        wait=wait_random_exponential(**BACKOFF_S),
        before_sleep=_say_away,
        reraise=True,
    ):
        with attempt:
            stored = write(engine(), batch)
    log.info(
        "committed",
        events=len(batch),
        stored=stored,
        ms=round((monotonic() - started) * 1000, 1),
        age_ms=round((datetime.now(UTC) - min(event.received_at for event in batch)).total_seconds() * 1000),
        redelivered=bool(self.request.delivery_info.get("redelivered")),
        task_id=self.request.id,
    )


@cache
def engine() -> Engine:
    """This child's connection to PostgreSQL: opened after the fork, one, since a child runs one task at a time."""
    return connect(settings.database_url, pool_size=1)


def _say_away(state: RetryCallState) -> None:
    if state.attempt_number == 1:
        reason = state.outcome.exception() if state.outcome else None
        log.warning("PostgreSQL is away; holding the message", reason=str(reason).splitlines()[0])
