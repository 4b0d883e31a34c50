"""Observes a run: how many views are accepted, stored, waiting and redelivered.

Each figure has its own thread, because a frozen database must not hide what the broker says.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Self

import psycopg
from psycopg.conninfo import make_conninfo

from view_events.topology import messages_database

SAMPLE_INTERVAL_S = 1.0
#: Seconds between two checks for figures that exist only for a moment.
POLL_INTERVAL_S = 0.05
CONNECT_S = 2
#: A figure older than this many seconds counts as unknown.
STALE_S = 2.5
#: What a worker logs for each batch that the broker had delivered before (history_worker/tasks.py).
REDELIVERED = b"redelivered=True"

#: Returns a figure, or None if it is unknown at the moment. It may raise an error, and it may be slow.
Measurement = Callable[[], float | None]


class Redeliveries:
    """Counts written batches that had been delivered before. Reads logs that grow and are rotated. For one thread."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        #: How far each log was read, by its inode. A renamed file keeps its inode.
        self._read: dict[int, int] = {}
        self._count = 0

    def count(self) -> int:
        """Return the count so far."""
        for path in sorted(self._logs.glob("history-worker-*.log*")):
            try:
                with path.open("rb") as file:
                    inode = os.fstat(file.fileno()).st_ino
                    file.seek(self._read.get(inode, 0))
                    lines = file.read()
            except FileNotFoundError:
                continue  # just rotated; it is there under its next name
            # An incomplete line is read again later.
            whole = lines.rfind(b"\n") + 1
            self._read[inode] = self._read.get(inode, 0) + whole
            self._count += lines.count(REDELIVERED, 0, whole)
        return self._count


class LearnerRedeliveries:
    """Counts messages that were read a second time, in pgmq's tables, before their workers have deleted them.

    It checks often, because a redelivered message is written within moments. For one thread that calls `count`.
    """

    def __init__(self, broker_url: str) -> None:
        self._conninfo = make_conninfo(messages_database(broker_url), connect_timeout=CONNECT_S)
        self._seen: set[int] = set()
        threading.Thread(target=self._poll, name="redeliveries", daemon=True).start()

    def count(self) -> int:
        """Return the count so far."""
        return len(self._seen)

    def _poll(self) -> None:
        while True:
            with suppress(psycopg.Error), psycopg.connect(self._conninfo, autocommit=True) as connection:
                while True:
                    rows = connection.execute("SELECT msg_id FROM pgmq.q_history WHERE read_ct > 1")
                    self._seen.update(msg_id for (msg_id,) in rows)
                    sleep(POLL_INTERVAL_S)
            sleep(SAMPLE_INTERVAL_S)


class Sampler:
    """Asks every question once a second, and keeps all answers: `samples`, with `at_s` since the beginning."""

    def __init__(self, measurements: Mapping[str, Measurement]) -> None:
        self._measurements = measurements
        self._values: dict[str, tuple[float, float | None]] = {}
        self._stopped = threading.Event()
        self._began = monotonic()
        self.samples: list[dict[str, float | None]] = []

    def __enter__(self) -> Self:
        self._began = monotonic()
        for name, measure in self._measurements.items():
            threading.Thread(target=self._measure, args=(name, measure), name=f"watch-{name}", daemon=True).start()
        threading.Thread(target=self._record, name="watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def now(self) -> dict[str, float | None]:
        """Return the latest figures. None for those that were unknown a moment ago."""
        oldest = monotonic() - STALE_S
        values = dict(self._values)
        known = {name: value for name, (at, value) in values.items() if at >= oldest}
        return {"at_s": monotonic() - self._began} | {name: known.get(name) for name in self._measurements}

    def _measure(self, name: str, measure: Measurement) -> None:
        while not self._stopped.wait(SAMPLE_INTERVAL_S):
            try:
                value = measure()
            except Exception:  # noqa: BLE001 (whatever is broken just now is broken on purpose)
                value = None
            self._values[name] = (monotonic(), value)

    def _record(self) -> None:
        while not self._stopped.wait(SAMPLE_INTERVAL_S):
            self.samples.append(self.now())
