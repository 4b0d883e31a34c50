"""Manages the partitions of `view_events`: lists them, makes them ahead of time, and detaches those that are past.

`flixtrail partitions` does it from a terminal. The migrations make missing partitions at every start.
history_worker/store/retention.py says which months those are. Running it again, or twice at once, changes nothing more.
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

from history_worker.store.retention import (
    MONTHS_AHEAD,
    Month,
    Range,
    is_past,
    missing,
    oldest_kept,
)
from history_worker.store.tables import SCHEMA_LOCK
from history_worker.store.writer import ERASURE_LOCK
from service.database import connect
from view_events.event import event_id_time, first_id

log = structlog.get_logger(__name__)

DEFAULT = "view_events_default"
#: Writers that begin while this waits for a lock have to wait behind it. So it waits only for a moment. Then it pauses,
#: so that writers can pass, and tries again.
LOCK_TIMEOUT_MS = 1_000
STEP_BACK_S = (0.2, 1.0)
#: If somebody keeps a table locked for longer, the error says so. A backup reads all tables and keeps its locks until
#: its end.
PATIENCE_S = 30
#: Rows of derived tables that one transaction deletes. It locks them for some milliseconds.
CHUNK = 1_000

State = Literal["default", "ahead", "current", "kept", "past", "detached"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition, or a table that was a partition."""

    name: str
    ids: Range
    attached: bool
    rows: int | None  #: PostgreSQL's estimate; None: not analyzed yet
    bytes: int

    @property
    def is_default(self) -> bool:
        return self.name == DEFAULT

    def state(self, now: datetime) -> State:
        """Return what the partition is for. `past`: it may be detached."""
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
    """What was deleted together with the views that are too old to keep."""

    playbacks: int
    erased_ids: int


#: Detached partitions that still exist are listed, too. Their names say which ids they have.
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
    """Make an engine for this module. It has no time limit for an answer: moving rows may take long."""
    return connect(url, pool_size=2, answer_timeout_s=None)


def clock(engine: Engine) -> datetime:
    """Return the earlier time of this host's clock and the database's.

    A partition that is detached too early is lost.
    """
    with engine.connect() as connection:
        databases: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return min(datetime.now(UTC), databases)


def listed(connection: Connection) -> list[Partition]:
    """Return all partitions, oldest first; the default partition is the last."""
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
    """Return the ranges that have a partition of their own."""
    return [one.ids for one in partitions if one.attached and not one.is_default]


# -- making ----------------------------------------------------------------------------------------------------------


def make(engine: Engine, now: datetime, months_ahead: int = MONTHS_AHEAD) -> dict[str, int]:
    """Make the missing partitions. Returns `{name: views that were moved there from the default partition}`.

    Each month is a transaction of its own. Raises sqlalchemy.exc.DBAPIError if PostgreSQL is away, if the role has no
    right, or if somebody keeps the tables locked for longer than PATIENCE_S. Partitions that were made until then stay.
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


#: A constraint that holds for new rows only has NOT VALID at its end.
_CONSTRAINTS = text("""
SELECT conname, pg_get_constraintdef(oid)
  FROM pg_constraint
 WHERE conrelid = 'view_events'::regclass AND contype = 'c'
""")


def _make(month: Month, now: datetime, months_ahead: int, transaction: Connection) -> int | None:
    """Make the partition of a month. None: another process has made it meanwhile."""
    if month not in missing(attached(listed(transaction)), now, months_ahead):
        return None
    # No worker may write meanwhile. An insert that reaches the default partition after the month has its own would be
    # refused for good (SQLSTATE 23514). Every writer has this lock, shared (see writer.py).
    transaction.execute(text(f"SELECT pg_advisory_xact_lock({ERASURE_LOCK})"))
    transaction.execute(text(f"LOCK TABLE {DEFAULT} IN ACCESS EXCLUSIVE MODE"))
    transaction.execute(text(f"CREATE TABLE {month.partition} (LIKE view_events INCLUDING ALL EXCLUDING CONSTRAINTS)"))
    moved = transaction.execute(
        text(f"""
            WITH moved AS (
                DELETE FROM {DEFAULT} WHERE event_id >= :begin AND event_id < :end RETURNING *
            )
            INSERT INTO {month.partition} SELECT * FROM moved
        """),  # noqa: S608 (names of ours)
        {"begin": month.begin, "end": month.end},
    ).rowcount
    # Constraints follow after the move, NOT VALID if they are so in the parent: a row from before a constraint may
    # break it, and stays.
    for name, rule in transaction.execute(_CONSTRAINTS).all():
        transaction.exec_driver_sql(f"ALTER TABLE {month.partition} ADD CONSTRAINT {name} {rule}")
    # Not CREATE ... PARTITION OF: that would lock the whole table.
    transaction.execute(
        text(
            f"ALTER TABLE view_events ATTACH PARTITION {month.partition}"
            f" FOR VALUES FROM ('{month.begin}') TO ('{month.end}')"
        )
    )
    return moved


# -- detaching -------------------------------------------------------------------------------------------------------


def past(engine: Engine, now: datetime) -> list[Partition]:
    """Return the partitions that are to be detached, and detached ones that still exist."""
    with engine.connect() as connection:
        return [one for one in listed(connection) if one.state(now) in {"past", "detached"}]


def detach(engine: Engine, now: datetime, *, drop: bool = False) -> list[str]:
    """Detach past partitions, and return their names. With `drop`, drop them, and those that were detached before.

    A detached partition is a table that neither a worker nor an erase reads any more. Raises sqlalchemy.exc.DBAPIError,
    as `make` does.
    """
    return [
        one.name
        for one in past(engine, now)
        if (one.attached or drop) and _patiently(engine, partial(_detach, one.name, now, drop=drop))
    ]


def _detach(name: str, now: datetime, transaction: Connection, *, drop: bool) -> bool:
    """Detach one partition. Returns False if there was nothing to do: another process may have done it meanwhile."""
    found = next((one for one in listed(transaction) if one.name == name), None)
    state = found and found.state(now)
    if state == "past":
        # PostgreSQL refuses CONCURRENTLY if there is a default partition. The lock on the whole table lasts for one
        # change in the catalogue.
        transaction.execute(text(f"ALTER TABLE view_events DETACH PARTITION {name}"))
        log.info("partition detached", partition=name)
    if drop and state in {"past", "detached"}:
        transaction.execute(text(f"DROP TABLE {name}"))
        log.info("partition dropped", partition=name)
    return state == "past" or (drop and state == "detached")


#: Reads everything that is kept once, without a lock that blocks a writer. `last_event_id` alone is not enough: the
#: event with the latest time may have a smaller id than another event, and that one may be kept.
_OUTLIVED = text("""
SELECT viewer_id, playback_id, video_id, events
  FROM playbacks
 WHERE last_event_id < :kept_from
   AND NOT EXISTS (SELECT FROM view_events
                    WHERE (view_events.viewer_id, view_events.playback_id, view_events.video_id)
                        = (playbacks.viewer_id, playbacks.playback_id, playbacks.video_id))
""")
#: `events`: do not delete a playback that has counted another event since then.
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
    """Delete the playbacks without any kept event. Also delete erased ids so old that workers refuse them anyway.

    Works in chunks, each a transaction. You may stop it and run it again. Raises sqlalchemy.exc.DBAPIError.
    """
    with engine.connect() as connection:
        begins = [ids.begin for ids in attached(listed(connection))]
    if not begins or None in begins:
        return Pruned(0, 0)  # a partition without a lower bound still exists: nothing was detached yet
    kept_from = min(*(begin for begin in begins if begin is not None), first_id(oldest_kept(now)))
    playbacks = 0
    with engine.connect() as reading:
        reading.execute(text("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0"))
        reading.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
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
            # Moving a month out of a large default partition takes longer than a worker's statement may.
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
    """Return whether it only waited too long for a lock, or PostgreSQL ended it because of a deadlock."""
    held_up = psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected
    return isinstance(error, DBAPIError) and isinstance(error.orig, held_up)
