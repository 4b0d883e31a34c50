"""The history database: every view event, what is derived from them, and who was erased."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, DateTime, Double, Index, Integer, LargeBinary, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import NUMMULTIRANGE

metadata = MetaData()

#: Held by who changes tables: the migrations, and who makes or detaches partitions. Any number that nobody else takes.
SCHEMA_LOCK = 5_672_5432

#: One row an event, as it was sent. The primary key is what makes a redelivery harmless. It is also what the table is
#: partitioned by (history_worker/partitions.py), or PostgreSQL could not keep it unique over all partitions.
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

#: One row a playback of a video by a viewer: derived from the set of its events, whatever the order they came in.
playbacks = Table(
    "playbacks",
    metadata,
    Column("viewer_id", Text, primary_key=True),
    Column("playback_id", Uuid, primary_key=True),
    Column("video_id", Text, primary_key=True),
    Column("started_at", DateTime(timezone=True), nullable=False),  # the earliest event's time
    Column("last_at", DateTime(timezone=True), nullable=False),  # the latest event's time, and with its id ...
    Column("last_event_id", Uuid, nullable=False),  # ... what decides whether another event is later
    Column("position_s", Double, nullable=False),  # the latest event's
    Column("finished", Boolean, nullable=False),
    Column("played", NUMMULTIRANGE, nullable=False),  # seconds of the video that were really played
    Column("events", Integer, nullable=False),  # how many events were counted: each once
)

#: A viewer's playbacks, newest first: the order in which they are read.
Index(
    "playbacks_newest_first",
    playbacks.c.viewer_id,
    playbacks.c.last_at.desc(),
    playbacks.c.playback_id.desc(),
    playbacks.c.video_id.desc(),
)

#: One row an erased viewer. Views of theirs that were received up to `erased_at` are dropped, whenever they arrive.
erasures = Table(
    "erasures",
    metadata,
    # SHA-256 of the viewer id: who was erased is not to be listed here. (Who guesses an id can still find it.)
    Column("viewer", LargeBinary, primary_key=True),
    Column("erased_at", DateTime(timezone=True), nullable=False),
)

#: The ids of erased events, so that each stays used: the same event, sent again after the erase, changes nothing.
erased_events = Table("erased_events", metadata, Column("event_id", Uuid, primary_key=True))
