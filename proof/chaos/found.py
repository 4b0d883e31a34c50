"""Reads what is there after a run: the rows of the history database, and the dead letters."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from kombu.message import Message
from sqlalchemy import NullPool, create_engine, make_url, text

from proof.chaos.recompute import playbacks_differ

#: UUIDs in the body of a message.
UUIDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Row(NamedTuple):
    """One row of `view_events`."""

    event_id: str
    viewer_id: str
    video_id: str
    playback_id: str
    kind: str
    position_s: float
    played_from_s: float | None
    at: datetime
    received_at: datetime

    @property
    def playback(self) -> tuple[str, str, str]:
        return self.viewer_id, self.playback_id, self.video_id


class Playback(NamedTuple):
    """One row of `playbacks`, with the columns that are checked."""

    viewer_id: str
    playback_id: str
    video_id: str
    position_s: float
    events: int

    @property
    def key(self) -> tuple[str, str, str]:
        return self.viewer_id, self.playback_id, self.video_id


@dataclass(frozen=True)
class DeadLetter:
    """One message of the dead-letter queue. `event_ids` are the ids of its events, as far as it can be read."""

    task_id: str | None
    text: str
    event_ids: tuple[str, ...] = ()

    def marks(self, expected: Collection[str]) -> set[str]:
        """Return which of the expected marks this message is or contains."""
        carried = {*UUIDS.findall(self.text), *self.event_ids, self.task_id or ""}
        return carried.intersection(expected)


@dataclass(frozen=True)
class Found:
    """What is there after a run. `differences`: from recompute.playbacks_differ."""

    rows: Sequence[Row]
    playbacks: Sequence[Playback]
    differences: Sequence[str] = ()
    dead: Sequence[DeadLetter] = field(default_factory=list)


def read(database_url: str, dead_letters: Sequence[Message]) -> Found:
    """Read everything that is stored, at one moment, and these dead letters. Raises sqlalchemy.exc.DBAPIError."""
    url = make_url(database_url).set(drivername="postgresql+psycopg")
    engine = create_engine(url, poolclass=NullPool, isolation_level="REPEATABLE READ")
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT event_id::text, viewer_id, video_id, playback_id::text, kind, position_s, played_from_s, at,"
                " received_at FROM view_events"
            )
        )
        events = [Row(*row) for row in rows]
        rows = connection.execute(
            text("SELECT viewer_id, playback_id::text, video_id, position_s, events FROM playbacks")
        )
        playbacks = [Playback(*row) for row in rows]
        differences = playbacks_differ(connection)
    return Found(events, playbacks, differences, [dead_letter(message) for message in dead_letters])


def dead_letter(message: Message) -> DeadLetter:
    """Read a dead letter as far as possible: it may not be a valid message at all."""
    body: Any = message.body
    said = body if isinstance(body, str) else bytes(body).decode(errors="replace")
    task_id = (message.headers or {}).get("id")
    return DeadLetter(task_id if isinstance(task_id, str) else None, said, _event_ids(said))


def _event_ids(body: str) -> tuple[str, ...]:
    try:
        events = json.loads(body)[0][0]
        return tuple(str(event["event_id"]) for event in events if isinstance(event, dict) and "event_id" in event)
    except (ValueError, LookupError, TypeError):
        return ()
