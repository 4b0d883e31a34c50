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

from history_worker.app import app, settings
from history_worker.database import connect
from history_worker.holding import hold, hurry
from history_worker.refusals import dead_letter, decode_each, write_what_can_be
from history_worker.writer import write
from view_events.event import TASK, VERSION, ViewEvent

log = structlog.get_logger(__name__)


@app.task(name=TASK, bind=True)  # type: ignore[untyped-decorator]
def record_views(self: Task, events: Sequence[dict[str, Any]], version: int = VERSION) -> None:
    """Write the events of one message. Returning means committed.

    Celery acknowledges the message after this returns (`task_acks_late`): commit, then ack. A crash between the two
    means a redelivery, and the redelivery finds every id stored and changes nothing.

    While PostgreSQL is away the message stays held, unacknowledged. Events that can never be stored move to the
    dead-letter queue, with the reason, and the others commit. A version that is not known moves the whole message.
    """
    started = monotonic()
    batch, refused = decode_each(events, version)
    stored, also_refused = write_what_can_be(batch, lambda part: hold(lambda: write(engine(), part)))
    refused += also_refused
    # Before the message is acknowledged: a crash between the two puts them there twice, and never not at all.
    dead_letter(refused, self.request.id)
    log.info(
        "committed",
        events=len(batch),
        stored=stored,
        ms=round((monotonic() - started) * 1000, 1),
        refused=len(refused),
        age_ms=age_ms(batch),
        redelivered=bool(self.request.delivery_info.get("redelivered")),
        task_id=self.request.id,
    )


def age_ms(batch: Sequence[ViewEvent]) -> int | None:
    """Since the oldest of them was received; None where there is none."""
    oldest = min((event.received_at for event in batch), default=None)
    return None if oldest is None else round((datetime.now(UTC) - oldest).total_seconds() * 1000)


@cache
def engine() -> Engine:
    """This child's connection to PostgreSQL: opened after the fork, one, since a child runs one task at a time."""
    return connect(settings.database_url, pool_size=1, hurry=hurry)
