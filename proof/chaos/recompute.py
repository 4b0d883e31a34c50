"""Recomputes the playbacks from the log of events, and says where what is stored differs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

#: The whole log at once and from nothing, where the writer goes batch by batch and adds to what is there. One statement
#: sees one moment: this also holds while events are being written.
_DIFFERENCES = text("""
WITH totals AS (
    SELECT viewer_id, playback_id, video_id,
           min(at) AS started_at,
           bool_or(kind = 'finished') AS finished,
           coalesce(range_agg(numrange(played_from_s::numeric, position_s::numeric))
                    FILTER (WHERE played_from_s < position_s), '{}') AS played,
           count(*) AS events
      FROM view_events
     GROUP BY viewer_id, playback_id, video_id
), latest AS (
    SELECT DISTINCT ON (viewer_id, playback_id, video_id)
           viewer_id, playback_id, video_id, at AS last_at, event_id AS last_event_id, position_s
      FROM view_events
     ORDER BY viewer_id, playback_id, video_id, at DESC, event_id DESC
), given AS (
    SELECT * FROM totals JOIN latest USING (viewer_id, playback_id, video_id)
)
SELECT viewer_id, playback_id, video_id, to_jsonb(playbacks) AS stored, to_jsonb(given) AS given
  FROM playbacks FULL JOIN given USING (viewer_id, playback_id, video_id)
 WHERE to_jsonb(playbacks) IS DISTINCT FROM to_jsonb(given)
 ORDER BY viewer_id, playback_id, video_id
""")


def playbacks_differ(connection: Connection) -> list[str]:
    """A line for every playback that is missing or extra, and for every column that differs, with both values.

    No line: every row of `playbacks` is what its events give, and every event is in one. Once partitions were detached
    (history_worker/partitions.py), a playback with events on both sides has counted more than the log still has.
    """
    return [line for row in connection.execute(_DIFFERENCES) for line in _lines(row)]


def _lines(row: Any) -> list[str]:
    name = f"playback {row.playback_id} of {row.video_id!r} by {row.viewer_id!r}"
    if row.stored is None:
        return [f"{name}: missing, and the log has {row.given['events']} events of it"]
    if row.given is None:
        return [f"{name}: extra, with {row.stored['events']} events that the log does not have"]
    return [
        f"{name}: {column} is {value}, and the log gives {row.given[column]}"
        for column, value in row.stored.items()
        if value != row.given[column]
    ]
