"""Events that can never be stored: found one by one, so that the others of their message commit."""

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

from history_worker.database import is_refusal, sqlstate
from history_worker.moving import TIMEOUT_S, confirming, drop, open_channel
from history_worker.reasons import DETAIL, KIND, REDRIVEN, WHEN, Reason, one_line
from history_worker.retention import GRACE, oldest_taken
from view_events import metrics, topology
from view_events.event import RETENTION, TASK, VERSION, ViewEvent, decode, encode

log = structlog.get_logger(__name__)

#: The broker may be restarting, or somebody may have deleted the queue, which the workers bring back within 10 s.
KEEP_TRYING_S = 15
BACKOFF_S = {"multiplier": 0.2, "max": 3}


@dataclass(frozen=True, slots=True)
class Refused:
    """One event of a message that cannot be stored, as it came, and why."""

    event: object
    reason: Reason

    def text(self, field: str) -> str | None:
        """A field of it, as far as it is an object with such a text."""
        value = self.event.get(field) if isinstance(self.event, dict) else None
        return one_line(value) if isinstance(value, str) else None


def decode_each(events: Sequence[object], version: int) -> tuple[list[ViewEvent], list[Refused]]:
    """What are events, and what are none. Raises UnknownEventVersion; msgspec.ValidationError for what is no list."""
    if not isinstance(events, list | tuple):
        raise msgspec.ValidationError(f"Expected a list of events, got {type(events).__name__}")
    try:
        return decode(events, version), []
    except msgspec.ValidationError:
        pass  # rare; only then is each looked at by itself
    good: list[ViewEvent] = []
    refused: list[Refused] = []
    for event in events:
        try:
            good += decode([event], version)
        except msgspec.ValidationError as invalid:
            refused.append(Refused(event, Reason("no-event", one_line(invalid))))
    return good, refused


def without_too_old(batch: list[ViewEvent], now: datetime) -> tuple[list[ViewEvent], list[Refused]]:
    """The events whose ids are still known, and those that may have been stored, counted, and detached since then."""
    oldest = oldest_taken(now).int
    if not batch or min(event.event_id.int for event in batch) >= oldest:
        return batch, []
    detail = f"its id is older than {(RETENTION + GRACE).days} days"
    too_old = [event for event in batch if event.event_id.int < oldest]
    refused = [Refused(event, Reason("too-old", detail)) for event in encode(too_old)]
    return [event for event in batch if event.event_id.int >= oldest], refused


def write_what_can_be(
    batch: Sequence[ViewEvent], write: Callable[[Sequence[ViewEvent]], int]
) -> tuple[int, list[Refused]]:
    """How many rows were new, and the events that the database refuses for good.

    k of n events that are refused cost O(k log n) statements: a batch that is refused is halved, and each half tried.
    Raises what `write` raises when that is not about the events.
    """
    if not batch:
        return 0, []
    try:
        return write(batch), []
    except (DBAPIError, UnicodeEncodeError) as error:
        if not is_refusal(error):
            raise
        if len(batch) == 1:
            return 0, [Refused(encode(batch)[0], Reason("database", describe(error)))]
    middle = len(batch) // 2
    stored, refused = write_what_can_be(batch[:middle], write)
    also_stored, also_refused = write_what_can_be(batch[middle:], write)
    return stored + also_stored, refused + also_refused


def describe(error: BaseException) -> str:
    """With the SQLSTATE where there is one: `22P05 unsupported Unicode escape sequence`."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return one_line(f"{sqlstate(error) or ''} {error.orig}")
    return one_line(f"{type(error).__name__}: {error}")


def dead_letter(refused: Sequence[Refused], task_id: str) -> None:
    """Put them into the dead-letter queue, confirmed, each as a message that could be sent again as it is.

    Raises celery.exceptions.Reject when the broker has not taken them within KEEP_TRYING_S: their message then goes
    back to its queue. What has been put there already is put there again, under the same ids.
    """
    if not refused:
        return
    try:
        Retrying(
            wait=wait_random_exponential(**BACKOFF_S),
            stop=stop_after_delay(KEEP_TRYING_S),
            before_sleep=_say_not_taken,
            reraise=True,
        )(_publish, refused, task_id)
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


def _publish(refused: Sequence[Refused], task_id: str) -> None:
    # Of a message that was redriven: its refused events then get the ids that they had before.
    request = current_task.request if current_task else None
    root_id = (request and request.root_id) or task_id
    redriven = int((request and request.get(REDRIVEN)) or 0)
    amqp = topology.is_amqp(current_app.conf.broker_url)
    # In learner mode a publish returns when PostgreSQL has committed the message.
    options = confirming("dead-letters") if amqp else {}
    connection = current_app.connection_for_write(**options)
    try:
        producer = Producer(open_channel(connection), auto_declare=False)
        for one in refused:
            current_app.send_task(
                TASK,
                args=([one.event],),
                kwargs={"version": VERSION},
                task_id=id_of(one.event, root_id),
                root_id=root_id,
                parent_id=task_id,
                headers={
                    KIND: one.reason.kind,
                    DETAIL: one.reason.detail,
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
    """The same each time: a message that is delivered again has its refused events dead-lettered under the same ids."""
    return str(uuid5(NAMESPACE_OID, f"{root_id} {json.dumps(event, sort_keys=True)}"))


def _say_not_taken(state: RetryCallState) -> None:
    if state.attempt_number == 1:
        reason = state.outcome.exception() if state.outcome else None
        log.warning("the dead-letter queue cannot be reached; holding the message", reason=one_line(reason))
