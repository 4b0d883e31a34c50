"""Writes a batch of view events: new rows, and from the rows that really were new, the playbacks."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Engine, text

from view_events.event import ViewEvent

#: One statement, so that one round trip writes a batch. `fresh` is what ON CONFLICT let through: an id that was stored
#: before gives no row here, and so can count nowhere.
#:
#: Deadlocks: two workers may hold the same events (redelivered batches overlap) or the same playbacks. Both tables are
#: written in the order of their keys, and all events before all playbacks (the aggregate needs the last event first).
#:
#: Order of arrival: every column is the result of min, max, or, union or sum, over event time where time matters, so
#: that shuffled and late events give the same playback. A tie in time goes to the larger id.
WRITE = text("""
WITH fresh AS (
    INSERT INTO view_events
           (event_id, viewer_id, video_id, playback_id, kind, position_s, played_from_s, at, received_at)
    SELECT  event_id, viewer_id, video_id, playback_id, kind, position_s, played_from_s, at, received_at
      FROM json_to_recordset(CAST(:events AS json)) AS sent(
           event_id uuid, viewer_id text, video_id text, playback_id uuid, kind text,
           position_s float8, played_from_s float8, at timestamptz, received_at timestamptz)
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

    Raises sqlalchemy.exc.DBAPIError; then nothing of the batch is stored. `database.is_outage` tells whether to retry.
    """
    with engine.begin() as transaction:
        return int(transaction.execute(WRITE, {"events": msgspec.json.encode(events).decode()}).scalar_one())
