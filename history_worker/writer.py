"""Writes a batch of view events: new rows, and from the rows that really were new, the playbacks."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Engine, text

from view_events.event import ViewEvent

#: The lock between writers and an erase (history_worker/erasure.py): held shared by every transaction that writes
#: views, so that writers do not disturb each other, and exclusively by one that erases. One for all viewers: erasing is
#: rare and short. Any number that nobody else takes; the migrations have the one below.
ERASURE_LOCK = 5_672_5433

#: The first statement of the transaction, and by itself. What a statement sees is what was committed when it began: if
#: WRITE took the lock, it would wait for an erase to commit, and then look with eyes from before it.
LOCK = text(f"SELECT pg_advisory_xact_lock_shared({ERASURE_LOCK})")

#: One statement writes a batch. `fresh` is what ON CONFLICT let through: an id that was stored before gives no row
#: here, and so can count nowhere.
#:
#: `erased` is what must not come back: received before its viewer was erased, or known by its id as erased (sent again
#: after that). Their ids are remembered. While nobody was ever erased, the first condition is asked once, not an event.
#:
#: Deadlocks: two workers may hold the same events (redelivered batches overlap) or the same playbacks. Both tables are
#: written in the order of their keys, and all events before all playbacks (the aggregate needs the last event first).
#:
#: Order of arrival: every column is the result of min, max, or, union or sum, over event time where time matters, so
#: that shuffled and late events give the same playback. A tie in time goes to the larger id.
WRITE = text("""
WITH sent AS (
    SELECT *
      FROM json_to_recordset(CAST(:events AS json)) AS sent(
           event_id uuid, viewer_id text, video_id text, playback_id uuid, kind text,
           position_s float8, played_from_s float8, at timestamptz, received_at timestamptz)
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
           (event_id, viewer_id, video_id, playback_id, kind, position_s, played_from_s, at, received_at)
    SELECT  event_id, viewer_id, video_id, playback_id, kind, position_s, played_from_s, at, received_at
      FROM sent
     WHERE event_id NOT IN (SELECT event_id FROM erased)
     ORDER BY event_id
        ON CONFLICT (event_id) DO NOTHING
 RETURNING *
), changed AS (
    INSERT INTO playbacks AS known
           (viewer_id, playback_id, video_id, started_at, last_at, last_event_id, position_s, finished, played, events)
    SELECT viewer_id, playback_id, video_id,
           min(at),
           max(at),
           (array_agg(event_id   ORDER BY at DESC, event_id DESC))[1],
           (array_agg(position_s ORDER BY at DESC, event_id DESC))[1],
           bool_or(kind = 'finished'),
           coalesce(range_agg(numrange(played_from_s::numeric, position_s::numeric))
                    FILTER (WHERE played_from_s IS NOT NULL), '{}'),
           count(*)
      FROM fresh
     GROUP BY viewer_id, playback_id, video_id
     ORDER BY viewer_id, playback_id, video_id
        ON CONFLICT (viewer_id, playback_id, video_id) DO UPDATE SET
           started_at    = least(known.started_at, excluded.started_at),
           position_s    = CASE WHEN (excluded.last_at, excluded.last_event_id) > (known.last_at, known.last_event_id)
                                THEN excluded.position_s ELSE known.position_s END,
           last_event_id = CASE WHEN (excluded.last_at, excluded.last_event_id) > (known.last_at, known.last_event_id)
                                THEN excluded.last_event_id ELSE known.last_event_id END,
           last_at       = greatest(known.last_at, excluded.last_at),
           finished      = known.finished OR excluded.finished,
           played        = known.played + excluded.played,
           events        = known.events + excluded.events
)
SELECT count(*) FROM fresh
""")


def write(engine: Engine, events: Sequence[ViewEvent]) -> int:
    """Store what is new of a batch in one transaction, and say how many that were.

    What was received before its viewer was erased is dropped.

    Raises sqlalchemy.exc.DBAPIError; then nothing of the batch is stored. `holding.hold` tries again.
    """
    with engine.begin() as transaction:
        transaction.execute(LOCK)
        return int(transaction.execute(WRITE, {"events": msgspec.json.encode(events).decode()}).scalar_one())
