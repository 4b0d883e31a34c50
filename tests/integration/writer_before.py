"""What workers of the version before 0004_bounds.py write with: they run beside the new ones during an update."""

from __future__ import annotations

from sqlalchemy import text

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
