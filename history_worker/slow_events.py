"""Finds events for which PostgreSQL takes too long while it writes others, so that the others commit.

A slow statement alone does not prove that its events are to blame: the disk may be slow. So each time another event,
with a made-up viewer, is written and rolled back. Only if that is quick are the events to blame, and the batch is
halved. An event that is alone and took too long TRIES times is dead-lettered. Waiting for a lock never counts.
docs/decisions/0019-slow-events.md says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import getrandbits
from time import monotonic
from uuid import UUID, uuid4

import structlog
from celery.exceptions import Reject
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from history_worker import unstorable_events
from history_worker.store.writer import Timeouts, can_write, write
from history_worker.unstorable_events import Unstorable
from safe_consumer.dead_letter_reasons import Reason
from safe_consumer.retry import until_committed
from service import database, metrics
from service.database import LOCK_NOT_AVAILABLE, QUERY_CANCELED, TookTooLong, sqlstate
from view_events.event import ViewEvent, encode

log = structlog.get_logger(__name__)

#: How often an event alone may run into the statement timeout before it is dead-lettered.
TRIES = 3
#: The part of the statement timeout within which a healthy PostgreSQL writes the other event. During a search, half a
#: batch must also be written within it. A half that takes longer is halved again, which does no harm.
QUICK_SHARE = 1 / 8
#: Seconds for which a message may occupy a process with its slow events, plus one more try. Then it is requeued.
ROUND_S = 30
#: How many events' tries a process remembers. After that it forgets all of them, and counts again from 0.
REMEMBERED = 10_000

#: The id of a message, and how often it was redriven. After a redrive its events' tries count from 0.
Name = tuple[str, int]

#: How often an event took too long, by message and event. Each process counts by itself.
_tries: dict[tuple[Name, UUID], int] = {}


def write_together(engine: Engine, batch: Sequence[ViewEvent]) -> int:
    """Write events of several messages. Raises TookTooLong, or the error, if each message is to be tried by itself.

    That includes a wait for a lock that other events need not wait for: a row that somebody keeps locked.
    """
    return until_committed(
        lambda: _write(engine, batch),
        lambda error: _may_be_theirs(error) and _writes_others(engine, batch[0]),
    )


def _may_be_theirs(error: BaseException) -> bool:
    return isinstance(error, TookTooLong) or sqlstate(error) == LOCK_NOT_AVAILABLE


class SlowEventSearch:
    """Writes one message, and searches for its slow events if it has any."""

    def __init__(self, engine: Engine, name: Name) -> None:
        self._engine = engine
        self._name = name
        self._began = monotonic()
        self._searching = False
        self._tried = False
        self._stored = 0

    def write_storable(self, batch: Sequence[ViewEvent]) -> tuple[int, list[Unstorable]]:
        """Do the same as `unstorable_events.write_storable`.

        Raises Reject after ROUND_S: the message is to continue later.
        """
        self._searching = any(map(self._tries_of, batch)) if _tries else False
        if not self._searching:
            return unstorable_events.write_storable(batch, self._write_part)
        # The message was requeued in the middle of the search.
        given_up = [event for event in batch if self._tries_of(event) >= TRIES]
        gone = {event.event_id for event in given_up}
        others = [event for event in batch if event.event_id not in gone]
        stored, refused = unstorable_events.write_storable(others, self._write_part)
        reason = Reason("too-slow", str(_too_long()))
        return stored, refused + [Unstorable(event, reason) for event in encode(given_up)]

    def forget_tries(self) -> None:
        """Forget the tries of its events: each is stored or a dead letter."""
        for key in [key for key in _tries if key[0] == self._name]:
            del _tries[key]

    def _tries_of(self, event: ViewEvent) -> int:
        return _tries.get((self._name, event.event_id), 0)

    def _write_part(self, part: Sequence[ViewEvent]) -> int:
        """Write a part.

        Raises TookTooLong if it is to be halved, or, for a single event, if it is to be dead-lettered.
        """
        stored = self._write_alone(part[0]) if len(part) == 1 else self._write_several(part)
        self._stored += stored
        return stored

    def _write_several(self, part: Sequence[ViewEvent]) -> int:
        self._give_others_a_turn()
        # Before a search, the events get the timeout of every statement: nothing proves yet that they are to blame.
        limits = [_quick()] if self._searching else []
        try:
            return until_committed(
                lambda: _write(self._engine, part, limits.pop() if limits else None),
                lambda error: isinstance(error, TookTooLong) and _writes_others(self._engine, part[0]),
            )
        except TookTooLong as error:
            if not self._searching:
                self._searching = True
                log.warning("too slow, while others are written; looking for the event", reason=str(error))
            raise

    def _write_alone(self, event: ViewEvent) -> int:
        while True:
            self._give_others_a_turn()
            try:
                # A suspect may wait for a lock only for a moment, because its own time is to be measured.
                timeouts = _strict() if self._searching or self._tries_of(event) else None
                return until_committed(
                    partial(_write, self._engine, [event], timeouts),
                    lambda error: isinstance(error, TookTooLong) and _writes_others(self._engine, event),
                )
            except TookTooLong:
                self._tried = True
                tries = self._tries_of(event) + 1
                if len(_tries) >= REMEMBERED:
                    _tries.clear()
                _tries[self._name, event.event_id] = tries
                log.warning("too slow by itself, while others are written", event_id=str(event.event_id), tries=tries)
                if tries >= TRIES:
                    raise

    def _give_others_a_turn(self) -> None:
        """Raise Reject if the message has used up ROUND_S. Each round tries at least one event, so the search ends."""
        if self._tried and monotonic() - self._began > ROUND_S:
            metrics.worker().stored.inc(self._stored)  # the next time, their ids are known already
            raise Reject("others are to have a turn before its slow events are tried again", requeue=True)


def _write(engine: Engine, events: Sequence[ViewEvent], timeouts: Timeouts | None = None) -> int:
    """Write events.

    Raises TookTooLong for a statement that ran into its timeout, not for one that somebody cancelled.
    """
    began = monotonic()
    try:
        return write(engine, events, timeouts)
    except DBAPIError as error:
        limit_ms = timeouts.statement_ms if timeouts else database.STATEMENT_TIMEOUT_MS
        if sqlstate(error) == QUERY_CANCELED and (monotonic() - began) * 1000 >= limit_ms:
            raise _too_long(limit_ms) from error
        raise


def _too_long(limit_ms: int | None = None) -> TookTooLong:
    return TookTooLong((limit_ms or database.STATEMENT_TIMEOUT_MS) / 1000)


def _quick() -> Timeouts:
    quick_ms = int(database.STATEMENT_TIMEOUT_MS * QUICK_SHARE)
    return Timeouts(quick_ms, quick_ms)


def _strict() -> Timeouts:
    return Timeouts(database.STATEMENT_TIMEOUT_MS, _quick().lock_ms)


def _writes_others(engine: Engine, like: ViewEvent) -> bool:
    """Return whether PostgreSQL quickly writes another event, of a made-up viewer, into the same partition."""
    nobodys = ViewEvent(
        event_id=UUID(int=like.event_id.int ^ (getrandbits(61) << 1 | 1)),  # the same time, version and variant
        viewer_id=f"nobody-{uuid4()}",
        video_id="none",
        playback_id=uuid4(),
        kind="started",
        position_s=0.0,
        at=like.received_at,
        received_at=like.received_at,
    )
    return can_write(engine, [nobodys], _quick())
