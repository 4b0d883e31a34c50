"""The partitions of `view_events`: which there are, making them ahead of time, and detaching those that are past.

`flixtrail partitions` does it from a terminal; the migrations make what is missing at every start. Which months those
are says history_worker/retention.py. Done again, or by two at once, it changes nothing more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Literal, TypeVar
from uuid import UUID

import psycopg
import structlog
from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from history_worker.database import connect
from history_worker.retention import (
    MONTHS_AHEAD,
    Month,
    Range,
    is_past,
    missing,
    oldest_kept,
)
from history_worker.tables import SCHEMA_LOCK
from history_worker.writer import ERASURE_LOCK
from view_events.event import event_id_time, first_id

log = structlog.get_logger(__name__)

DEFAULT = "view_events_default"
#: Writers that begin while this waits, wait behind it. So it waits for a moment only, steps back for another one that
#: lets them pass, and tries again.
LOCK_TIMEOUT_MS = 1_000
STEP_BACK_S = (0.2, 1.0)
#: Who holds a table for longer (a backup reads all of them, from its begin to its end) is told of, and not waited for.
PATIENCE_S = 30
#: Rows of derived tables that are deleted in one transaction: it locks them for some milliseconds.
CHUNK = 1_000

State = Literal["default", "ahead", "current", "kept", "past", "detached"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition, or a table that was one."""

    name: str
    ids: Range
    attached: bool
    rows: int | None  #: PostgreSQL's estimate; None: it has not looked yet
    bytes: int

    @property
    def is_default(self) -> bool:
        return self.name == DEFAULT

    def state(self, now: datetime) -> State:
        """What it is for. `past`: may be detached."""
        if self.is_default:
            return "default"
        if not self.attached:
            return "detached"
        if is_past(self.ids, now):
            return "past"
        current = first_id(now)
        if self.ids.begin is not None and self.ids.begin > current:
            return "ahead"
        return "kept" if self.ids.end is not None and self.ids.end <= current else "current"


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went with the views that are not kept any more."""

    playbacks: int
    erased_ids: int


#: Also those that were detached and are still there: their names say what they held.
_LIST = text(r"""
SELECT relname AS name, relispartition AS attached, pg_get_expr(relpartbound, oid) AS bounds,
       CASE WHEN reltuples >= 0 THEN reltuples::bigint END AS rows, pg_total_relation_size(oid) AS bytes
  FROM pg_class
 WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
   AND (oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'public.view_events'::regclass)
        OR relname ~ '^view_events_(before_)?\d{4}_\d{2}$')
 ORDER BY relname
""")
_BOUNDS = re.compile(r"FOR VALUES FROM \((?P<begin>.*?)\) TO \((?P<end>.*?)\)")
_NAME = re.compile(r"view_events_(?P<before>before_)?(?P<year>\d{4})_(?P<month>\d{2})")


def connect_as_owner(url: str) -> Engine:
    """An engine for this module: moving rows takes as long as it takes."""
    return connect(url, pool_size=2, answer_s=None)


def clock(engine: Engine) -> datetime:
    """The earlier one of this host's clock and the database's: what is detached too early is gone."""
    with engine.connect() as connection:
        databases: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return min(datetime.now(UTC), databases)


def listed(connection: Connection) -> list[Partition]:
    """All of them, oldest first; the default one last."""
    found = [
        Partition(row.name, _range(row.name, row.bounds), row.attached, row.rows, row.bytes)
        for row in connection.execute(_LIST)
    ]
    return sorted(found, key=lambda one: (one.is_default, one.ids.end or UUID(int=0)))


def _range(name: str, bounds: str | None) -> Range:
    if bounds is None:
        parts = _NAME.fullmatch(name)
        assert parts, name  # noqa: S101 (_LIST asks for such names)
        month = Month(int(parts["year"]), int(parts["month"]))
        return Range(None, month.begin) if parts["before"] else Range(month.begin, month.end)
    found = _BOUNDS.fullmatch(bounds)
    return Range(_bound(found["begin"]), _bound(found["end"])) if found else Range(None, None)


def _bound(value: str) -> UUID | None:
    return None if value in {"MINVALUE", "MAXVALUE"} else UUID(value.strip("'"))


def attached(partitions: Iterable[Partition]) -> list[Range]:
    """The ranges that have a partition of their own."""
    return [one.ids for one in partitions if one.attached and not one.is_default]


# -- making ----------------------------------------------------------------------------------------------------------


def make(engine: Engine, now: datetime, months_ahead: int = MONTHS_AHEAD) -> dict[str, int]:
    """Make what is missing: `{name: views that lay in the default partition, and were moved}`.

    Each month is a transaction of its own. Raises sqlalchemy.exc.DBAPIError: PostgreSQL is away, the role may not, or
    somebody holds the tables for longer than PATIENCE_S. What was made until then stays.
    """
    with engine.connect() as connection:
        wanted = missing(attached(listed(connection)), now, months_ahead)
    made: dict[str, int] = {}
    for month in wanted:
        moved = _patiently(engine, partial(_make, month, now, months_ahead))
        if moved is not None:
            made[month.partition] = moved
            log.info("partition made", partition=month.partition, moved=moved)
    return made


def _make(month: Month, now: datetime, months_ahead: int, transaction: Connection) -> int | None:
    """None: another one has made it meanwhile."""
    if month not in missing(attached(listed(transaction)), now, months_ahead):
        return None
    # An insert on its way into the default partition that came there only after the month had its own would be refused
    # for good (SQLSTATE 23514). So nobody writes meanwhile: all who do hold this lock, shared (see writer.py).
    transaction.execute(text(f"SELECT pg_advisory_xact_lock({ERASURE_LOCK})"))
    transaction.execute(text(f"LOCK TABLE {DEFAULT} IN ACCESS EXCLUSIVE MODE"))
    transaction.execute(text(f"CREATE TABLE {month.partition} (LIKE view_events INCLUDING ALL)"))
    moved = transaction.execute(
        text(f"""
            WITH moved AS (
                DELETE FROM {DEFAULT} WHERE event_id >= :begin AND event_id < :end RETURNING *
            )
            INSERT INTO {month.partition} SELECT * FROM moved
        """),  # noqa: S608 (names of ours)
        {"begin": month.begin, "end": month.end},
    ).rowcount
    # Not CREATE ... PARTITION OF: that would keep everybody out of the whole table.
    transaction.execute(
        text(
            f"ALTER TABLE view_events ATTACH PARTITION {month.partition}"
            f" FOR VALUES FROM ('{month.begin}') TO ('{month.end}')"
        )
    )
    return moved


# -- detaching -------------------------------------------------------------------------------------------------------


def past(engine: Engine, now: datetime) -> list[Partition]:
    """What is to be detached, and what was and is still there."""
    with engine.connect() as connection:
        return [one for one in listed(connection) if one.state(now) in {"past", "detached"}]


def detach(engine: Engine, now: datetime, *, drop: bool = False) -> list[str]:
    """Detach what is past; with `drop`, drop it, and what was detached before. Says the names.

    A detached partition is a table that nobody reads any more: neither a worker nor an erase.
    Raises sqlalchemy.exc.DBAPIError, as `make` does.
    """
    return [
        one.name
        for one in past(engine, now)
        if (one.attached or drop) and _patiently(engine, partial(_detach, one.name, now, drop=drop))
    ]


def _detach(name: str, now: datetime, transaction: Connection, *, drop: bool) -> bool:
    """Whether there was something to be done: another one may have done it meanwhile."""
    found = next((one for one in listed(transaction) if one.name == name), None)
    state = found and found.state(now)
    if state == "past":
        # CONCURRENTLY is refused where there is a default partition. The lock on the whole table is held for a change
        # in the catalogue.
        transaction.execute(text(f"ALTER TABLE view_events DETACH PARTITION {name}"))
        log.info("partition detached", partition=name)
    if drop and state in {"past", "detached"}:
        transaction.execute(text(f"DROP TABLE {name}"))
        log.info("partition dropped", partition=name)
    return state == "past" or (drop and state == "detached")


#: One look at everything that is kept, without a lock that disturbs somebody. `last_event_id` alone does not say it:
#: the event that is the latest by its time may have a smaller id than another one, which is kept.
_OUTLIVED = text("""
SELECT viewer_id, playback_id, video_id, events
  FROM playbacks
 WHERE last_event_id < :kept_from
   AND NOT EXISTS (SELECT FROM view_events
                    WHERE (view_events.viewer_id, view_events.playback_id, view_events.video_id)
                        = (playbacks.viewer_id, playbacks.playback_id, playbacks.video_id))
""")
#: `events`: unless it has counted one since then.
_DELETE_PLAYBACKS = text("""
DELETE FROM playbacks
 USING unnest(CAST(:viewers AS text[]), CAST(:playbacks AS uuid[]), CAST(:videos AS text[]), CAST(:events AS int[]))
       AS outlived (viewer_id, playback_id, video_id, events)
 WHERE (playbacks.viewer_id, playbacks.playback_id, playbacks.video_id, playbacks.events)
     = (outlived.viewer_id, outlived.playback_id, outlived.video_id, outlived.events)
""")
_DELETE_ERASED = text("""
DELETE FROM erased_events
 WHERE event_id IN (SELECT event_id FROM erased_events WHERE event_id < :kept_from ORDER BY event_id LIMIT :chunk)
""")


def prune(engine: Engine, now: datetime) -> Pruned:
    """Delete the playbacks of which no event is kept, and forget the erased ids that workers refuse by their age.

    In chunks, each a transaction. It may be broken off and run again. Raises sqlalchemy.exc.DBAPIError.
    """
    with engine.connect() as connection:
        begins = [ids.begin for ids in attached(listed(connection))]
    if not begins or None in begins:
        return Pruned(0, 0)  # the oldest partition begins with the oldest id there can be: nothing was detached yet
    kept_from = min(*(begin for begin in begins if begin is not None), first_id(oldest_kept(now)))
    playbacks = 0
    with engine.connect() as reading:
        reading.execute(text("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"))
        rows = reading.execution_options(yield_per=CHUNK).execute(_OUTLIVED, {"kept_from": kept_from})
        for chunk in rows.partitions():
            viewers, ids, videos, events = map(list, zip(*chunk, strict=True))
            values = {"viewers": viewers, "playbacks": ids, "videos": videos, "events": events}
            playbacks += _patiently(engine, partial(_rows, _DELETE_PLAYBACKS, values))
    erased_ids = 0
    while forgotten := _patiently(engine, partial(_rows, _DELETE_ERASED, {"kept_from": kept_from, "chunk": CHUNK})):
        erased_ids += forgotten
    log.info("pruned", kept_from=event_id_time(kept_from), playbacks=playbacks, erased_ids=erased_ids)
    return Pruned(playbacks, erased_ids)


def _rows(statement: TextClause, values: Mapping[str, object], transaction: Connection) -> int:
    return transaction.execute(statement, values).rowcount


# -- locks -----------------------------------------------------------------------------------------------------------


def _patiently(engine: Engine, change: Callable[[Connection], T]) -> T:
    def attempt() -> T:
        with engine.begin() as transaction:
            # Of a large default partition a month takes longer to move than a statement of a worker may.
            transaction.execute(text(f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
            transaction.execute(text(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"))
            return change(transaction)

    return Retrying(
        retry=retry_if_exception(is_held_up),
        wait=wait_random(*STEP_BACK_S),
        stop=stop_after_delay(PATIENCE_S),
        reraise=True,
    )(attempt)


def is_held_up(error: BaseException) -> bool:
    """Whether it only waited too long for others, or was the one of two that PostgreSQL ended."""
    held_up = psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected
    return isinstance(error, DBAPIError) and isinstance(error.orig, held_up)
