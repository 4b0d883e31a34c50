"""The tables of the history database: view events, the playbacks derived from them, and erased viewers.

migrations/versions/0004_bounds.py has the CHECK constraints.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import NUMMULTIRANGE

metadata = MetaData()

#: The lock for changes of tables: migrations have it, and whoever makes or detaches partitions. Any number that nothing
#: else uses.
SCHEMA_LOCK = 5_672_5432

#: One row for each event, as it was sent. The primary key makes a redelivery harmless. The table is also partitioned by
#: it (history_worker/store/partitions.py): otherwise PostgreSQL could not keep it unique over all partitions.
view_events = Table(
    "view_events",
    metadata,
    Column("event_id", Uuid, primary_key=True),
    Column("viewer_id", Text, nullable=False),
    Column("video_id", Text, nullable=False),
    Column("playback_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("position_s", Double, nullable=False),
    Column("played_from_s", Double),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False),
    postgresql_partition_by="RANGE (event_id)",
)

#: One row for each playback of a video by a viewer. It is derived from the set of its events, in whatever order they
#: came.
playbacks = Table(
    "playbacks",
    metadata,
    Column("viewer_id", Text, primary_key=True),
    Column("playback_id", Uuid, primary_key=True),
    Column("video_id", Text, primary_key=True),
    Column("started_at", DateTime(timezone=True), nullable=False),  # the earliest event's time
    Column("last_at", DateTime(timezone=True), nullable=False),  # the latest event's time. With the id below, ...
    Column("last_event_id", Uuid, nullable=False),  # ... it decides whether another event is later
    Column("position_s", Double, nullable=False),  # the latest event's
    Column("finished", Boolean, nullable=False),
    Column("played", NUMMULTIRANGE, nullable=False),  # the seconds of the video that were really played
    Column("events", Integer, nullable=False),  # how many events were counted, each once
    Column("played_gap_s", Numeric, nullable=False, server_default="0"),  # gaps up to this long count as played
)

#: A viewer's playbacks, newest first: the order in which the history API reads them.
Index(
    "playbacks_newest_first",
    playbacks.c.viewer_id,
    playbacks.c.last_at.desc(),
    playbacks.c.playback_id.desc(),
    playbacks.c.video_id.desc(),
)

#: One row for each erased viewer: a tombstone. Their views that were received up to `erased_at` are dropped, however
#: late they arrive.
erasures = Table(
    "erasures",
    metadata,
    # SHA-256 of the viewer id, so that this table does not list the names of erased viewers. (If you guess an id, you
    # can still find it.)
    Column("viewer", LargeBinary, primary_key=True),
    Column("erased_at", DateTime(timezone=True), nullable=False),
)

#: The ids of erased events. They stay used: if a client sends the same event again after the erase, nothing changes.
erased_events = Table("erased_events", metadata, Column("event_id", Uuid, primary_key=True))
