"""The rows of one database: empties the tables, waits for rows, counts them by id, and asks PostgreSQL for their commit
times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg

from proof.bench.errors import Lost
from service.waiting import wait_for_count

POLL_INTERVAL_S = 0.05
#: If no new row appears for this many seconds, the missing ones are lost.
STALL_TIMEOUT_S = 60
#: A sample of ids to wait for. Counting all rows earlier uses CPU time that then counts as that of the writers.
SAMPLE = 100

#: The time of the commit, because `received_at` and the like are set by the systems that are measured.
ARRIVED = """
SELECT count(*), extract(epoch FROM min(pg_xact_commit_timestamp(stored.xmin)))::float8,
       extract(epoch FROM max(pg_xact_commit_timestamp(stored.xmin)))::float8
  FROM sent JOIN view_events AS stored USING (event_id)
"""


@dataclass(frozen=True, slots=True)
class Arrived:
    """All rows of a trial are there. Has the commit times of the first and the last one (seconds since 1970)."""

    first: float
    last: float


class Rows:
    """The benchmark's own connection."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute("CREATE TEMP TABLE IF NOT EXISTS sent (event_id uuid PRIMARY KEY)")

    def clear(self) -> None:
        """Empty the tables and run a checkpoint. So no checkpoint is due later because of earlier work."""
        tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename = ANY(%s)"
        found = self._connection.execute(tables, (["view_events", "playbacks"],)).fetchall()
        self._connection.execute(f"TRUNCATE {', '.join(name for (name,) in found)}".encode())
        self.settle()

    def settle(self) -> None:
        self._connection.execute("CHECKPOINT")

    def wait(self, ids: Sequence[str]) -> None:
        """Wait for the last ids and a sample of the others, at almost no cost. Raises Lost if no more rows appear."""
        sample = list({*ids[:: max(1, len(ids) // SAMPLE)], *ids[-SAMPLE:]})
        stored = self._wait(lambda: len(self.visible(sample)), len(sample))
        if stored < len(sample):
            raise Lost(
                f"{stored} of a sample of {len(sample)} accepted events are stored. The count has not risen for "
                f"{STALL_TIMEOUT_S} s."
            )

    def arrived(self, ids: Sequence[str]) -> Arrived:
        """Wait until every row is there. Raises Lost if no more rows appear."""
        self._connection.execute("TRUNCATE sent")
        with self._connection.cursor() as cursor, cursor.copy("COPY sent FROM STDIN") as copy:
            copy.write("\n".join(ids) + "\n")
        stored = self._wait(lambda: int(self._one(ARRIVED)[0]), len(ids))
        if stored < len(ids):
            raise Lost(
                f"{len(ids):,} events were accepted and {stored:,} of them are stored. The count has not risen for "
                f"{STALL_TIMEOUT_S} s."
            )
        _, first, last = self._one(ARRIVED)
        return Arrived(first, last)

    def count(self) -> int:
        return int(self._one("SELECT count(*) FROM view_events")[0])

    def counted_once(self) -> None:
        """For our system: check that every stored event is counted once in its playback. Raises Lost."""
        stored, counted = self._one("SELECT (SELECT count(*) FROM view_events), (SELECT sum(events) FROM playbacks)")
        if stored != counted:
            raise Lost(f"{stored:,} events are stored, and the playbacks count {counted:,}.")

    def visible(self, ids: Sequence[str]) -> list[str]:
        """Return which of these ids are stored."""
        query = "SELECT event_id::text FROM view_events WHERE event_id = ANY(%s::uuid[])"
        return [event_id for (event_id,) in self._connection.execute(query, (list(ids),))]

    def execute(self, statement: str) -> None:
        self._connection.execute(statement.encode())

    def close(self) -> None:
        self._connection.close()

    @staticmethod
    def _wait(count: Callable[[], int], wanted: int) -> int:
        return wait_for_count(count, wanted, STALL_TIMEOUT_S, poll_interval_s=POLL_INTERVAL_S)

    def _one(self, query: str) -> tuple[float, ...]:
        row = self._connection.execute(query.encode()).fetchone()
        assert row is not None, query
        return row
