"""Recomputes the playbacks from the log of events, and reports differences from what is stored."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

#: This computes from the whole log at once, while the writer adds batch by batch. One statement sees one moment, so it
#: also works while events are being written.
#:
#: A playback with very many ranges is stored more coarsely (docs/decisions/0004-what-is-derived.md). Then all gaps in
#: the log's ranges that are as short as the playback says are closed. The result must equal the stored ranges. Ranges
#: of the version before were not rounded.
_DIFFERENCES = text("""
WITH totals AS (
    SELECT viewer_id, playback_id, video_id,
           min(at) AS started_at,
           bool_or(kind = 'finished') AS finished,
           coalesce(range_agg(numrange(round(played_from_s * 10)::int * 0.1, round(position_s * 10)::int * 0.1))
                    FILTER (WHERE played_from_s < position_s), '{}') AS played,
           count(*) AS events
      FROM view_events
     GROUP BY viewer_id, playback_id, video_id
), latest AS (
    SELECT DISTINCT ON (viewer_id, playback_id, video_id)
           viewer_id, playback_id, video_id, at AS last_at, event_id AS last_event_id, position_s
      FROM view_events
     ORDER BY viewer_id, playback_id, video_id, at DESC, event_id DESC
), there AS (
    SELECT viewer_id, playback_id, video_id, started_at, finished, events, last_at, last_event_id, position_s,
           played_gap_s,
           coalesce((SELECT range_agg(numrange(round(lower(part), 1), round(upper(part), 1)))
                       FROM unnest(played) AS part), '{}') AS played
      FROM playbacks
), given AS (
    SELECT viewer_id, playback_id, video_id, started_at, finished, totals.events, last_at, last_event_id,
           latest.position_s, coalesce(played_gap_s, 0) AS played_gap_s,
           CASE WHEN played_gap_s > 0 THEN played_without(totals.played, played_gap_s) ELSE totals.played END AS played
      FROM totals
      JOIN latest USING (viewer_id, playback_id, video_id)
      LEFT JOIN (SELECT viewer_id, playback_id, video_id, played_gap_s FROM playbacks) AS gaps
                USING (viewer_id, playback_id, video_id)
)
SELECT viewer_id, playback_id, video_id, to_jsonb(there) AS stored, to_jsonb(given) AS given
  FROM there FULL JOIN given USING (viewer_id, playback_id, video_id)
 WHERE to_jsonb(there) IS DISTINCT FROM to_jsonb(given)
 ORDER BY viewer_id, playback_id, video_id
""")


def playbacks_differ(connection: Connection) -> list[str]:
    """Return a line for each missing or extra playback, and for each column that differs, with both values.

    No lines: every row of `playbacks` is what its events give, and every event is in a playback. After partitions were
    detached (history_worker/store/partitions.py), a playback with events on both sides has counted more than the log
    still has.
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
