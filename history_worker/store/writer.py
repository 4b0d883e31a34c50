"""Writes a batch of view events: inserts the new rows, and updates the playbacks from those rows only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from history_worker.store.tables import view_events
from view_events.event import ViewEvent

#: The lock between writers and an erase (history_worker/store/erasure.py). Every transaction that writes views takes it
#: shared, so that writers do not block each other. An erase takes it exclusively. One lock serves all viewers, because
#: erases are rare and short. Any number that nothing else uses: history_worker/store/tables.py and roles.py have the
#: numbers beside it.
ERASURE_LOCK = 5_672_5433

#: The first statement of the transaction, and a statement of its own. A statement sees what was committed when it
#: began. If WRITE took the lock, it would wait for an erase to commit, but not see the tombstone.
LOCK = text(f"SELECT pg_advisory_xact_lock_shared({ERASURE_LOCK})")

#: Ranges that take less stay as they are: some fifty ranges, never more than 64. A range takes 15 to 23 bytes.
SMALL_BYTES = 960


def _tenths(seconds: str) -> str:
    """Return SQL that rounds seconds to a tenth. `round(seconds::numeric, 1)` takes five times as long."""
    return f"round({seconds} * 10)::int * 0.1"


#: The columns of `view_events`, which are the fields of an event; and the same with their types.
_COLUMNS = ", ".join(view_events.columns.keys())
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy gives no type
_RECORD = ", ".join(f"{column.name} {column.type.compile(_DIALECT)}" for column in view_events.columns)
_IS_SMALL = f"pg_column_size(known.played) + pg_column_size(excluded.played) < {SMALL_BYTES}"
_GAP = "greatest(known.played_gap_s, excluded.played_gap_s)"

#: This one statement writes a batch. `fresh` has the rows that ON CONFLICT let through. An id that was stored before
#: gives no row here, so it counts nowhere.
#:
#: `erased` has the events that must not come back. Either they were received before their viewer was erased, or their
#: ids are known as erased (a client sent them again after the erase). Their ids are remembered. As long as nobody was
#: ever erased, the first condition is checked once, not for each event.
#:
#: Deadlocks: two workers may have the same events (redelivered batches overlap) or the same playbacks. The statement
#: writes both tables in the order of their keys, and all events before all playbacks (the aggregate needs the last
#: event first).
#:
#: `played` stays small, whatever a client sends, because each write of a playback reads and writes all of it. Ends are
#: rounded to a tenth of a second. From SMALL_BYTES on, the shortest gaps are closed until at most 32 ranges remain
#: (`played_gap`, `played_without`: migrations/versions/0004_bounds.py). OFFSET 0 keeps PostgreSQL from inlining an
#: expression twice and computing it twice.
#:
#: Order of arrival: every column is a min, max, or, union or sum, over event time where time matters. So shuffled and
#: late events give the same playback. If two events have the same time, the larger id wins.
WRITE = text(f"""
WITH sent AS (
    SELECT *
      FROM json_to_recordset(CAST(:events AS json)) AS sent(
           {_RECORD})
), erased AS (
    SELECT event_id
      FROM sent JOIN erasures ON viewer = sha256(convert_to(viewer_id, 'UTF8'))
     WHERE EXISTS (SELECT FROM erasures)
       AND (received_at <= erased_at
            OR EXISTS (SELECT FROM erased_events AS known WHERE known.event_id = sent.event_id))
), remembered AS (
    INSERT INTO erased_events (event_id) SELECT event_id FROM erased ORDER BY event_id ON CONFLICT DO NOTHING
), fresh AS (
    INSERT INTO view_events
           ({_COLUMNS})
    SELECT  {_COLUMNS}
      FROM sent
     WHERE event_id NOT IN (SELECT event_id FROM erased)
     ORDER BY event_id
        ON CONFLICT (event_id) DO NOTHING
 RETURNING *
), changed AS (
    INSERT INTO playbacks AS known
           (viewer_id, playback_id, video_id, started_at, last_at, last_event_id, position_s, finished, events,
            played, played_gap_s)
    SELECT viewer_id, playback_id, video_id, started_at, last_at, last_event_id, position_s, finished, events,
           CASE WHEN gap_s = 0 THEN played ELSE played_without(played, gap_s) END, gap_s
      FROM (SELECT *, CASE WHEN pg_column_size(played) < {SMALL_BYTES} THEN 0 ELSE played_gap(played, 0) END AS gap_s
              FROM (SELECT viewer_id, playback_id, video_id,
                           min(at) AS started_at,
                           max(at) AS last_at,
                           (array_agg(event_id   ORDER BY at DESC, event_id DESC))[1] AS last_event_id,
                           (array_agg(position_s ORDER BY at DESC, event_id DESC))[1] AS position_s,
                           bool_or(kind = 'finished') AS finished,
                           count(*) AS events,
                           coalesce(range_agg(numrange({_tenths("played_from_s")}, {_tenths("position_s")}))
                                    FILTER (WHERE played_from_s IS NOT NULL), '{{}}') AS played
                      FROM fresh
                     GROUP BY viewer_id, playback_id, video_id) AS totals
            OFFSET 0) AS measured
     ORDER BY viewer_id, playback_id, video_id
        ON CONFLICT (viewer_id, playback_id, video_id) DO UPDATE SET
           started_at    = least(known.started_at, excluded.started_at),
           position_s    = CASE WHEN (excluded.last_at, excluded.last_event_id) > (known.last_at, known.last_event_id)
                                THEN excluded.position_s ELSE known.position_s END,
           last_event_id = CASE WHEN (excluded.last_at, excluded.last_event_id) > (known.last_at, known.last_event_id)
                                THEN excluded.last_event_id ELSE known.last_event_id END,
           last_at       = greatest(known.last_at, excluded.last_at),
           finished      = known.finished OR excluded.finished,
           events        = known.events + excluded.events,
           (played, played_gap_s) = (
               SELECT CASE WHEN gap_s = 0 THEN ranges ELSE played_without(ranges, gap_s) END, gap_s
                 FROM (SELECT ranges, CASE WHEN {_IS_SMALL} THEN {_GAP} ELSE played_gap(ranges, {_GAP}) END AS gap_s
                         FROM (SELECT known.played + excluded.played AS ranges OFFSET 0) AS united
                       OFFSET 0) AS measured)
)
SELECT count(*) FROM fresh
""")  # noqa: S608 (words of ours)


#: Sets the timeouts of one transaction.
TIMEOUTS = text("SELECT set_config('statement_timeout', :ms, true), set_config('lock_timeout', :lock_ms, true)")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits for each statement of one transaction, and for each lock that a statement waits for."""

    statement_ms: int
    lock_ms: int

    def set(self, transaction: Connection) -> None:
        """Set the timeouts in this transaction. It costs a round trip, so the usual write does without."""
        transaction.execute(TIMEOUTS, {"ms": str(self.statement_ms), "lock_ms": str(self.lock_ms)})


def write(engine: Engine, events: Sequence[ViewEvent], timeouts: Timeouts | None = None) -> int:
    """Store the new events of a batch in one transaction. Returns how many were new.

    Views that were received before their viewer was erased are dropped. `timeouts` replaces the session's timeouts.

    Raises sqlalchemy.exc.DBAPIError; then nothing of the batch is stored. safe_consumer/retry.py retries.
    """
    with engine.begin() as transaction:
        if timeouts is not None:
            timeouts.set(transaction)
        transaction.execute(LOCK)
        return int(transaction.execute(WRITE, {"events": msgspec.json.encode(events).decode()}).scalar_one())


def can_write(engine: Engine, events: Sequence[ViewEvent], timeouts: Timeouts) -> bool:
    """Return whether these events can be written within these timeouts. Nothing is stored."""
    try:
        with engine.connect() as connection:  # it rolls back
            timeouts.set(connection)
            connection.execute(LOCK)
            connection.execute(WRITE, {"events": msgspec.json.encode(events).decode()})
    except DBAPIError:
        return False
    return True
