"""The tasks of a worker: write, commit, then ack.

`record_messages` is the usual way: it writes all messages that wait in one transaction. If anything is wrong with one
of them, nothing is written, and `record_views`, the task that a message names, writes each by itself and finds out what
it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import structlog
from celery import Task
from celery.app.task import Context
from celery.exceptions import Ignore, Reject
from celery.signals import task_failure
from msgspec import ValidationError
from structlog.contextvars import bound_contextvars

from history_worker.app import GROUP_TASK, app, engine
from history_worker.slow_events import SlowEventSearch, write_together
from history_worker.unstorable_events import dead_letter, decode_each, split_too_old
from safe_consumer.dead_letter_reasons import REDRIVEN, count_in, one_line
from safe_consumer.group_commit import Delivery
from service import metrics
from view_events.event import TASK, VERSION, UnknownEventVersion, ViewEvent, decode_message, trace_ids

log = structlog.get_logger(__name__)


class TryEachMessage(Ignore):  # type: ignore[misc]
    """Something is wrong with one of several messages, so each is to be tried by itself.

    Raised by `record_messages`. Celery does not log it; `safe_consumer.group_commit` acts on it.
    """


@app.task(name=GROUP_TASK)  # type: ignore[untyped-decorator]
def record_messages(deliveries: Sequence[Delivery]) -> None:
    """Write the events of several messages in one transaction. When this returns, they are committed.

    Then the worker acknowledges each message. The order is always the same: commit, then ack. A crash between the two
    leads to a redelivery. It finds every id stored and changes nothing.

    Only `safe_consumer.group_commit` calls this. Raises TryEachMessage, and has written nothing, if anything is wrong
    with any message. Raises Reject if the worker stops while PostgreSQL is away.
    """
    # Every line that is logged inside this block has the ids of the tasks.
    with bound_contextvars(**ids(deliveries)):
        started = monotonic()
        for delivery in deliveries:
            metrics.worker().deliveries.labels("yes" if delivery.redelivered else "no").inc()
        try:
            batch = events_of(deliveries)
            stored = write_together(engine(), batch) if batch else 0
        except Reject:
            raise
        except Exception as error:  # whatever it is, one of the messages causes it
            log.debug("not together", reason=one_line(error))
            raise TryEachMessage from error
        count(batch, stored, 0, monotonic() - started)
        redelivered = any(delivery.redelivered for delivery in deliveries)
        log_committed(batch, started, stored=stored, refused=0, redelivered=redelivered)


@app.task(name=TASK, bind=True, Request="safe_consumer.request:Request")  # type: ignore[untyped-decorator]
def record_views(self: Task, events: Sequence[dict[str, Any]], version: int = VERSION) -> None:
    """Write the events of one message. When this returns, they are committed.

    Celery acknowledges the message after this returns (`task_acks_late`).

    While PostgreSQL is away, the worker keeps the message unacknowledged. Events that can never be stored, and events
    for which PostgreSQL takes too long, become dead letters with a reason, and the others commit. If the version is
    unknown, the whole message becomes a dead letter.
    """
    with bound_contextvars(task_id=self.request.id):
        _record(self.request, events, version)


def _record(request: Context, events: Sequence[dict[str, Any]], version: int) -> None:
    started = monotonic()
    redelivered = bool(request.delivery_info.get("redelivered"))
    metrics.worker().deliveries.labels("yes" if redelivered else "no").inc()
    decoded, refused = decode_each(events, version)
    batch, too_old = split_too_old(decoded, datetime.now(UTC))
    search = SlowEventSearch(engine(), (request.id, count_in(vars(request), REDRIVEN)))
    stored, also_refused = search.write_storable(batch)
    count(batch, stored, len(also_refused), monotonic() - started)
    refused += too_old + also_refused
    # Before the ack: after a crash between the two, events are dead-lettered twice, but never lost.
    dead_letter(refused, request.id)
    search.forget_tries()
    log_committed(batch, started, stored=stored, refused=len(refused), redelivered=redelivered)


def events_of(deliveries: Sequence[Delivery]) -> list[ViewEvent]:
    """Return the events of all messages.

    Raises TryEachMessage if one is too old, and the errors of `decode_message`.
    """
    batch, too_old = split_too_old(
        [event for delivery in deliveries for event in decode_message(delivery.body)], datetime.now(UTC)
    )
    if too_old:
        raise TryEachMessage("an id is too old")
    return batch


def ids(deliveries: Sequence[Delivery]) -> dict[str, Any]:
    """Return the ids for the log: `task_id`, and `task_ids` if there are several."""
    found = [delivery.task_id for delivery in deliveries]
    return {"task_id": found[0], **({"task_ids": found} if len(found) > 1 else {})}


def log_committed(batch: Sequence[ViewEvent], started: float, *, stored: int, refused: int, redelivered: bool) -> None:
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
    """Count a batch. Called after the commit: a process that dies between the two has not counted the batch."""
    if batch:
        figures = metrics.worker()
        figures.batch_events.observe(len(batch))
        figures.stored.inc(stored)
        figures.known.inc(len(batch) - refused - stored)
        figures.commit_seconds.observe(took_s)
        figures.view_age_seconds.observe(age_s(batch))


@task_failure.connect  # type: ignore[untyped-decorator]
def _count_failure(sender: Task, exception: BaseException, args: Sequence[Any], **_: Any) -> None:
    """Count the events of a message that is dead-lettered as a whole.

    safe_consumer/second_try.py counts the messages that it tries itself.
    """
    if sender.request.is_eager:
        return
    kinds: dict[type, str] = {UnknownEventVersion: "unknown-version", ValidationError: "no-event"}
    events = args[0] if args and isinstance(args[0], list) else [None]
    metrics.worker().refused.labels(kinds.get(type(exception), "failed")).inc(len(events))


def age_s(batch: Sequence[ViewEvent]) -> float:
    """Return the seconds since the oldest event was received."""
    return (datetime.now(UTC) - min(event.received_at for event in batch)).total_seconds()
