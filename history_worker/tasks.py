"""The task: write, commit, ack."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from time import monotonic
from typing import Any

import structlog
from celery import Task
from celery.app.task import Context
from celery.exceptions import Ignore, Reject
from celery.signals import task_failure
from msgspec import ValidationError
from sqlalchemy import Engine
from structlog.contextvars import bound_contextvars

from history_worker.app import app, settings
from history_worker.database import connect
from history_worker.gathering import TOGETHER, Delivery
from history_worker.holding import hold, hurry
from history_worker.reasons import one_line
from history_worker.refusals import dead_letter, decode_each, without_too_old, write_what_can_be
from history_worker.writer import write
from view_events import metrics
from view_events.event import TASK, VERSION, UnknownEventVersion, ViewEvent, decode_message, trace_ids

log = structlog.get_logger(__name__)


class Apart(Ignore):  # type: ignore[misc]
    """Messages cannot be written together: something is wrong with one of them, and each is to be tried alone.

    Raised by `record_together`; Celery does not log it, and `history_worker.gathering` does as it says.
    """


@app.task(name=TASK, bind=True)  # type: ignore[untyped-decorator]
def record_views(self: Task, events: Sequence[dict[str, Any]], version: int = VERSION) -> None:
    """Write the events of one message. Returning means committed.

    Celery acknowledges the message after this returns (`task_acks_late`): commit, then ack. A crash between the two
    means a redelivery, and the redelivery finds every id stored and changes nothing.

    While PostgreSQL is away the message stays held, unacknowledged. Events that can never be stored move to the
    dead-letter queue, with the reason, and the others commit. A version that is not known moves the whole message.
    """
    # In every line that is logged about this message meanwhile.
    with bound_contextvars(task_id=self.request.id):
        _record(self.request, events, version)


def _record(request: Context, events: Sequence[dict[str, Any]], version: int) -> None:
    started = monotonic()
    redelivered = bool(request.delivery_info.get("redelivered"))
    metrics.worker().deliveries.labels("yes" if redelivered else "no").inc()
    decoded, refused = decode_each(events, version)
    batch, too_old = without_too_old(decoded, datetime.now(UTC))
    stored, also_refused = write_what_can_be(batch, lambda part: hold(lambda: write(engine(), part)))
    count(batch, stored, len(also_refused), monotonic() - started)
    refused += too_old + also_refused
    # Before the message is acknowledged: a crash between the two puts them there twice, and never not at all.
    dead_letter(refused, request.id)
    say_committed(batch, started, stored=stored, refused=len(refused), redelivered=redelivered)


@app.task(name=TOGETHER)  # type: ignore[untyped-decorator]
def record_together(deliveries: Sequence[Delivery]) -> None:
    """Write the events of several messages in one transaction. Returning means committed, and each is acknowledged.

    Called by `history_worker.gathering` only. Raises Apart, and has written nothing, when anything is wrong with any of
    them; Reject when the worker stops while PostgreSQL is away.
    """
    with bound_contextvars(**ids(deliveries)):
        started = monotonic()
        for delivery in deliveries:
            metrics.worker().deliveries.labels("yes" if delivery.redelivered else "no").inc()
        try:
            batch = events_of(deliveries)
            stored = hold(lambda: write(engine(), batch)) if batch else 0
        except Reject:
            raise
        except Exception as error:  # whatever it is, it is about one of them
            log.debug("not together", reason=one_line(error))
            raise Apart from error
        count(batch, stored, 0, monotonic() - started)
        redelivered = any(delivery.redelivered for delivery in deliveries)
        say_committed(batch, started, stored=stored, refused=0, redelivered=redelivered)


def events_of(deliveries: Sequence[Delivery]) -> list[ViewEvent]:
    """All of them. Raises Apart when one is too old, and what `decode_message` raises."""
    batch, too_old = without_too_old(
        [event for delivery in deliveries for event in decode_message(delivery.body)], datetime.now(UTC)
    )
    if too_old:
        raise Apart("an id is too old")
    return batch


def ids(deliveries: Sequence[Delivery]) -> dict[str, Any]:
    """For the logs: `task_id`, and all of them where they are several."""
    found = [delivery.task_id for delivery in deliveries]
    return {"task_id": found[0], **({"task_ids": found} if len(found) > 1 else {})}


def say_committed(batch: Sequence[ViewEvent], started: float, *, stored: int, refused: int, redelivered: bool) -> None:
    log.info(
        "committed",
        events=len(batch),
        stored=stored,
        ms=round((monotonic() - started) * 1000, 1),
        refused=refused,
        age_ms=round(age_s(batch) * 1000) if batch else None,
        redelivered=redelivered,
        trace_ids=trace_ids(batch),
    )


def count(batch: Sequence[ViewEvent], stored: int, refused: int, took_s: float) -> None:
    """After the commit: who is killed between the two has not counted it."""
    if batch:
        figures = metrics.worker()
        figures.batch_events.observe(len(batch))
        figures.stored.inc(stored)
        figures.known.inc(len(batch) - refused - stored)
        figures.commit_seconds.observe(took_s)
        figures.view_age_seconds.observe(age_s(batch))


@task_failure.connect  # type: ignore[untyped-decorator]
def _count_failure(sender: Task, exception: BaseException, args: Sequence[Any], **_: Any) -> None:
    """Its message is dead-lettered as a whole. What is tried alone is counted there (history_worker/alone.py)."""
    if sender.request.is_eager:
        return
    kinds: dict[type, str] = {UnknownEventVersion: "unknown-version", ValidationError: "no-event"}
    events = args[0] if args and isinstance(args[0], list) else [None]
    metrics.worker().refused.labels(kinds.get(type(exception), "failed")).inc(len(events))


def age_s(batch: Sequence[ViewEvent]) -> float:
    """Since the oldest of them was received."""
    return (datetime.now(UTC) - min(event.received_at for event in batch)).total_seconds()


@cache
def engine() -> Engine:
    """This child's connection to PostgreSQL: opened after the fork, one, since a child runs one task at a time."""
    return connect(settings.database_url, pool_size=1, hurry=hurry)
