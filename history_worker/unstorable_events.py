"""Finds the events of a message that can never be stored, and dead-letters them, so that the others commit."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import msgspec
import structlog
from celery import current_app, current_task
from celery.exceptions import Reject
from kombu import Producer
from sqlalchemy.exc import DBAPIError
from tenacity import RetryCallState, Retrying, stop_after_delay, wait_random_exponential

from history_worker.store.retention import GRACE, oldest_taken
from safe_consumer.dead_letter_reasons import DETAIL, KIND, REDRIVEN, WHEN, Reason, count_in, one_line
from service import metrics
from service.confirming_connection import TIMEOUT_S, confirming, drop, open_channel
from service.database import TookTooLong, is_refusal, sqlstate
from view_events import topology
from view_events.event import RETENTION, TASK, VERSION, ViewEvent, decode, encode

log = structlog.get_logger(__name__)

#: Seconds. The broker may be restarting, or somebody may have deleted the queue. Workers declare it again within 10 s.
KEEP_TRYING_S = 15
BACKOFF_S = {"multiplier": 0.2, "max": 3}
#: Up to so many refused events of a message become a dead letter each. If there are more, up to BUNDLE share one.
SEPARATE = 20
BUNDLE = 1_000


@dataclass(frozen=True, slots=True)
class Unstorable:
    """One event that cannot be stored, as it came, and the reason."""

    event: object
    reason: Reason

    def text(self, field: str) -> str | None:
        """Return a text field of the event. None: it has no such field, or the field is not text."""
        value = self.event.get(field) if isinstance(self.event, dict) else None
        return one_line(value) if isinstance(value, str) else None


def decode_each(events: Sequence[object], version: int) -> tuple[list[ViewEvent], list[Unstorable]]:
    """Decode events one by one: returns the valid events, and the refused ones.

    Raises UnknownEventVersion; msgspec.ValidationError if `events` is not a list.
    """
    if not isinstance(events, list | tuple):
        raise msgspec.ValidationError(f"Expected a list of events, got {type(events).__name__}")
    try:
        return decode(events, version), []
    except msgspec.ValidationError:
        pass  # rare; only then is each event decoded by itself
    good: list[ViewEvent] = []
    refused: list[Unstorable] = []
    for event in events:
        try:
            good += decode([event], version)
        except msgspec.ValidationError as invalid:
            refused.append(Unstorable(event, Reason("no-event", one_line(invalid))))
    return good, refused


def split_too_old(batch: list[ViewEvent], now: datetime) -> tuple[list[ViewEvent], list[Unstorable]]:
    """Split a batch by age: the events to write, and the events that are too old.

    The row of an event that is too old may be gone. Then no worker can tell whether the event was stored and counted
    before.
    """
    oldest = oldest_taken(now).int
    if not batch or min(event.event_id.int for event in batch) >= oldest:
        return batch, []
    detail = f"its id is older than {(RETENTION + GRACE).days} days"
    too_old = [event for event in batch if event.event_id.int < oldest]
    refused = [Unstorable(event, Reason("too-old", detail)) for event in encode(too_old)]
    return [event for event in batch if event.event_id.int >= oldest], refused


def write_storable(
    batch: Sequence[ViewEvent], write: Callable[[Sequence[ViewEvent]], int]
) -> tuple[int, list[Unstorable]]:
    """Write a batch. Returns how many rows were new, and the events that the database refuses for good.

    If PostgreSQL refuses the batch, it is halved, and each half is tried. If k of n events are refused, that costs O(k
    log n) statements. A batch is also halved if its events make it too slow (history_worker/slow_events.py).

    Raises errors of `write` that are not about the events.
    """
    if not batch:
        return 0, []
    try:
        return write(batch), []
    except (DBAPIError, UnicodeEncodeError) as error:
        if not is_refusal(error):
            raise
        if len(batch) == 1:
            return 0, [Unstorable(encode(batch)[0], Reason("database", describe(error)))]
    except TookTooLong as error:
        if len(batch) == 1:
            return 0, [Unstorable(encode(batch)[0], Reason("too-slow", one_line(error)))]
    middle = len(batch) // 2
    stored, refused = write_storable(batch[:middle], write)
    also_stored, also_refused = write_storable(batch[middle:], write)
    return stored + also_stored, refused + also_refused


def describe(error: BaseException) -> str:
    """Return the error's text after its SQLSTATE, if there is one: `22P05 unsupported Unicode escape sequence`."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return one_line(f"{sqlstate(error) or ''} {error.orig}")
    return one_line(f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: events of one message that are refused for the same reason."""

    id: str
    events: list[object]
    reason: Reason


def letters(refused: Sequence[Unstorable], root_id: str) -> list[Letter]:
    """Make one dead letter for each event. If there are many events, those with the same reason share dead letters.

    The reason: each dead letter costs a round trip. Raises the errors of the JSON encoder.
    """
    bundles: list[tuple[list[object], Reason]] = [([one.event], one.reason) for one in refused]
    if len(refused) > SEPARATE:
        same: dict[Reason, list[object]] = {}
        for one in refused:
            same.setdefault(one.reason, []).append(one.event)
        bundles = [
            (events[begin : begin + BUNDLE], reason)
            for reason, events in same.items()
            for begin in range(0, len(events), BUNDLE)
        ]
    return [
        Letter(id_of(events[0] if len(events) == 1 else events, root_id), events, reason) for events, reason in bundles
    ]


def dead_letter(refused: Sequence[Unstorable], task_id: str) -> None:
    """Publish refused events to the dead-letter queue with confirms. Each message can be redriven as it is.

    Raises celery.exceptions.Reject if the broker has not confirmed them within KEEP_TRYING_S: the whole message is then
    requeued. Events that are dead letters already are then dead-lettered again, with the same ids. Raises any other
    error for events that cannot be encoded again: the whole message then becomes a dead letter.
    """
    if not refused:
        return
    # If a message was redriven, its refused events get the same ids as before.
    request = current_task.request if current_task else None
    root_id = one_line((request and request.root_id) or task_id)
    redriven = count_in(vars(request), REDRIVEN) if request else 0
    # Encode before the broker is asked: a retry would not help if this fails.
    found = letters(refused, root_id)
    try:
        Retrying(
            wait=wait_random_exponential(**BACKOFF_S),
            stop=stop_after_delay(KEEP_TRYING_S),
            before_sleep=_log_not_accepted,
            reraise=True,
        )(_publish, found, root_id, task_id, redriven)
    except Exception as error:
        raise Reject(f"the dead-letter queue cannot be reached: {error}", requeue=True) from error
    for one in refused:
        metrics.worker().refused.labels(one.reason.kind).inc()
        log.error(
            "event refused, dead-lettered",
            kind=one.reason.kind,
            reason=one.reason.detail,
            event_id=one.text("event_id"),
            trace_id=one.text("trace_id"),
        )


def _publish(found: Sequence[Letter], root_id: str, task_id: str, redriven: int) -> None:
    amqp = topology.is_amqp(current_app.conf.broker_url)
    # In learner mode a publish returns when PostgreSQL has committed the message.
    options = confirming("dead-letters") if amqp else {}
    connection = current_app.connection_for_write(**options)
    try:
        channel = open_channel(connection)
        if not amqp:  # each process of pgmq has its own bindings, and drops a message without one
            topology.DEAD_LETTERS(channel).declare()
        producer = Producer(channel, auto_declare=False)
        for letter in found:
            current_app.send_task(
                TASK,
                args=(letter.events,),
                kwargs={"version": VERSION},
                task_id=letter.id,
                root_id=root_id,
                parent_id=task_id,
                # Otherwise Celery would write all arguments into a header.
                argsrepr=f"<{len(letter.events)} events>",
                kwargsrepr="{}",
                headers={
                    KIND: letter.reason.kind,
                    DETAIL: letter.reason.detail,
                    REDRIVEN: redriven,
                    WHEN: datetime.now(UTC).isoformat(timespec="seconds"),
                },
                producer=producer,
                exchange=topology.DEAD.name,
                routing_key=topology.DEAD_LETTERS.routing_key,
                declare=[],
                mandatory=True,
                confirm_timeout=TIMEOUT_S,
                retry=False,
                ignore_result=True,
            )
    finally:
        drop(connection)


def id_of(event: Any, root_id: str) -> str:
    """Return an id that is the same each time: a redelivery dead-letters its refused events with the same ids."""
    return str(uuid5(NAMESPACE_OID, f"{root_id} {json.dumps(event, sort_keys=True)}"))


def _log_not_accepted(state: RetryCallState) -> None:
    if state.attempt_number == 1:
        reason = state.outcome.exception() if state.outcome else None
        log.warning(
            "the dead-letter queue cannot be reached; the message stays unacknowledged", reason=one_line(reason)
        )
