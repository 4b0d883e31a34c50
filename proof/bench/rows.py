"""The rows of one database: made empty, waited for, counted by their ids, and dated by PostgreSQL itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic, sleep

import psycopg

from proof.bench.errors import Lost

LOOK_EVERY_S = 0.05
#: Nothing new in the table for so long: it will not come any more.
SILENCE_S = 60
#: While some of these are missing, counting all would only take CPU from those who write, and be counted as theirs.
SAMPLE = 100

#: The commit's time, not the row's: `received_at` and the like are told by those who are measured.
ARRIVED = """
SELECT count(*), extract(epoch FROM min(pg_xact_commit_timestamp(stored.xmin)))::float8,
       extract(epoch FROM max(pg_xact_commit_timestamp(stored.xmin)))::float8
  FROM sent JOIN view_events AS stored USING (event_id)
"""


@dataclass(frozen=True, slots=True)
class Arrived:
    """All rows of a trial are there; when the first and the last one were committed (seconds since 1970)."""

    first: float
    last: float


class Rows:
    """A connection for the one who measures."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute("CREATE TEMP TABLE IF NOT EXISTS sent (event_id uuid PRIMARY KEY)")

    def clear(self) -> None:
        """Empty tables, and a checkpoint: none is due in the middle of what follows because of what went before."""
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename = ANY(%s)"
        found = self._connection.execute(tables, (["view_events", "playbacks"],)).fetchall()
        self._connection.execute(f"TRUNCATE {', '.join(name for (name,) in found)}".encode())
        self.settle()

    def settle(self) -> None:
        self._connection.execute("CHECKPOINT")

    def wait(self, ids: Sequence[str]) -> None:
        """Until the last ones and some of the others are there, at next to no cost. Raises Lost when no more come."""
        sample = list({*ids[:: max(1, len(ids) // SAMPLE)], *ids[-SAMPLE:]})
        self._until(sample)

    def arrived(self, ids: Sequence[str]) -> Arrived:
        """Once every single one of them is there. Raises Lost when nothing more comes."""
        self._connection.execute("TRUNCATE sent")
        with self._connection.cursor() as cursor, cursor.copy("COPY sent FROM STDIN") as copy:
            copy.write("\n".join(ids) + "\n")
        deadline = monotonic() + SILENCE_S
        before = -1.0
        while True:
            count, first, last = self._one(ARRIVED)
            if count == len(ids):
                return Arrived(first, last)
            if count != before:
                before, deadline = count, monotonic() + SILENCE_S
            if monotonic() > deadline:
                raise Lost(f"{len(ids):,} events were accepted and {count:,} of them are stored: {SILENCE_S} s waited.")
            sleep(LOOK_EVERY_S)

    def count(self) -> int:
        return int(self._one("SELECT count(*) FROM view_events")[0])

    def counted_once(self) -> None:
        """Of ours: every event that is stored is counted in its playback, once. Raises Lost."""
        stored, counted = self._one("SELECT (SELECT count(*) FROM view_events), (SELECT sum(events) FROM playbacks)")
        if stored != counted:
            raise Lost(f"{stored:,} events are stored, and the playbacks count {counted:,}.")

    def visible(self, ids: Sequence[str]) -> list[str]:
        """Those of these ids that are stored."""
        query = "SELECT event_id::text FROM view_events WHERE event_id = ANY(%s::uuid[])"
        return [event_id for (event_id,) in self._connection.execute(query, (list(ids),))]

    def execute(self, statement: str) -> None:
        self._connection.execute(statement.encode())

    def close(self) -> None:
        self._connection.close()

    def _until(self, sample: Sequence[str]) -> None:
        before, deadline = -1, monotonic() + SILENCE_S
        while (count := len(self.visible(sample))) < len(sample):
            if count != before:
                before, deadline = count, monotonic() + SILENCE_S
            if monotonic() > deadline:
                raise Lost(f"Of {len(sample)} accepted events that were looked for, {count} are stored: no more come.")
            sleep(LOOK_EVERY_S)

    def _one(self, query: str) -> tuple[float, ...]:
        row = self._connection.execute(query.encode()).fetchone()
        assert row is not None, query  # noqa: S101 (an aggregate always gives one)
        return row
