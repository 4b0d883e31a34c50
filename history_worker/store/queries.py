"""Reads the history. Pages are found by key, not by OFFSET, so page 1,000 costs as much as page 1."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from sqlalchemy import Engine, text

#: Rows of a page: by default, and the maximum.
PAGE = 20
MAX_PAGE = 100


#: A video id in a cursor. A client may have changed the cursor, so it may contain anything.
_VideoId = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[^\x00]*\Z")]
_Key = tuple[Annotated[datetime, msgspec.Meta(tz=True)], UUID, _VideoId]


class BadCursor(Exception):
    """This service did not make this cursor. Raised by `Cursor.decode`; answered with 422."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page ended: the key of its last row."""

    last_at: datetime
    playback_id: UUID
    video_id: str

    def encode(self) -> str:
        key = msgspec.json.encode([self.last_at, self.playback_id, self.video_id])
        return base64.urlsafe_b64encode(key).decode().rstrip("=")

    @classmethod
    def decode(cls, cursor: str) -> Cursor:
        """Decode a cursor. Raises BadCursor."""
        try:
            key = base64.urlsafe_b64decode(cursor.encode("ascii") + b"==")
            return cls(*msgspec.json.decode(key, type=_Key))
        except (ValueError, msgspec.DecodeError, RecursionError):
            raise BadCursor(f"cursor {cursor[:40]!r} is not one that this service gave") from None


_HISTORY = text("""
SELECT playback_id, video_id, started_at, last_at, position_s, finished,
       (SELECT coalesce(sum(upper(part) - lower(part)), 0)::float8 FROM unnest(played) AS part) AS watched_s
  FROM playbacks
 WHERE viewer_id = :viewer_id
   AND (CAST(:video_id AS text) IS NULL OR video_id = :video_id)
   AND (CAST(:last_at AS timestamptz) IS NULL
        OR (last_at, playback_id, video_id) < (:last_at, :after_playback_id, :after_video_id))
 ORDER BY last_at DESC, playback_id DESC, video_id DESC
 LIMIT :rows
""")


def history(
    engine: Engine, viewer_id: str, *, video_id: str | None = None, after: Cursor | None = None, limit: int = PAGE
) -> dict[str, Any]:
    """Return a viewer's playbacks, newest first: `{"items": [...], "next_cursor": str | None}`."""
    parameters = {
        "viewer_id": viewer_id,
        "video_id": video_id,
        "last_at": after and after.last_at,
        "after_playback_id": after and after.playback_id,
        "after_video_id": after and after.video_id,
        "rows": limit + 1,  # one more than asked for shows whether there is a next page
    }
    with engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(_HISTORY, parameters).mappings()]
    page = rows[:limit]
    more = len(rows) > limit
    cursor = Cursor(page[-1]["last_at"], page[-1]["playback_id"], page[-1]["video_id"]).encode() if more else None
    return {"items": page, "next_cursor": cursor}


#: One statement sees one moment. With two statements, an event written between them would count as counted and not as
#: stored.
_RECEIPTS = text("""
WITH asked AS MATERIALIZED (
    SELECT event_id, viewer_id, playback_id, video_id FROM view_events WHERE event_id = ANY(CAST(:ids AS uuid[]))
)
SELECT (SELECT coalesce(array_agg(event_id), '{}') FROM asked) AS stored,
       (SELECT coalesce(sum(events), 0)
          FROM playbacks
         WHERE (viewer_id, playback_id, video_id) IN (SELECT viewer_id, playback_id, video_id FROM asked)) AS counted
""")


def receipts(engine: Engine, ids: Sequence[UUID]) -> dict[str, Any]:
    """Return which events are stored and how often they are counted: `{"stored": n, "counted": n, "missing": [ids]}`.

    All numbers are of the same moment. `counted` is how many events the playbacks of the stored events have counted. If
    you ask for every event that was sent for some playbacks, including those that were not accepted, `counted` must
    equal `stored`. A larger number means that an event was counted twice. A smaller one means that a stored event was
    not counted.
    """
    with engine.connect() as connection:
        row = connection.execute(_RECEIPTS, {"ids": list(ids)}).one()
    stored = set(row.stored)
    missing = [str(event_id) for event_id in ids if event_id not in stored]
    return {"stored": len(stored), "counted": int(row.counted), "missing": missing}


#: A row, its playback, and whether its id is that of an erased event.
_VIEW = text("""
SELECT asked.event_id, stored.viewer_id, stored.video_id, stored.playback_id, stored.kind, stored.position_s,
       stored.at, stored.received_at,
       playbacks.events, playbacks.position_s AS playback_position_s, playbacks.started_at, playbacks.last_at,
       playbacks.finished,
       EXISTS (SELECT FROM erased_events WHERE erased_events.event_id = asked.event_id) AS erased
  FROM (SELECT CAST(:event_id AS uuid) AS event_id) AS asked
  LEFT JOIN view_events AS stored USING (event_id)
  LEFT JOIN playbacks USING (viewer_id, playback_id, video_id)
""")


def view(engine: Engine, event_id: UUID) -> dict[str, Any]:
    """Return one view event: `{"erased": bool, "stored": {...} | None, "playback": {...} | None}`."""
    with engine.connect() as connection:
        row = dict(connection.execute(_VIEW, {"event_id": event_id}).mappings().one())
    stored = {name: row[name] for name in ("viewer_id", "video_id", "kind", "position_s", "at", "received_at")}
    playback = {
        "playback_id": row["playback_id"],
        "events": row["events"],
        "position_s": row["playback_position_s"],
        **{name: row[name] for name in ("started_at", "last_at", "finished")},
    }
    return {
        "erased": row["erased"],
        "stored": stored if row["viewer_id"] is not None else None,
        "playback": playback if row["events"] is not None else None,
    }
