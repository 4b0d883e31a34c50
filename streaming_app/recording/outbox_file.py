"""One outbox file: a SQLite database, and a lock that says which process owns it.

`NAME.lock` is made and locked before `NAME.sqlite`. If a lock is not held, any process may adopt the file. The kernel
releases the lock when its process ends, however it ends. A process that is only stopped keeps its lock.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Self

from service import file_lock
from streaming_app.recording.errors import OtherOutboxVersion
from view_events.event import VERSION

#: SQLite's default page size. `max_page_count` counts these pages.
PAGE_BYTES = 4096
#: Pages that the empty tables take.
SMALLEST_PAGES = 6
#: An empty file of this size or more is shrunk.
SHRINK_BYTES = 4 * 1024 * 1024
#: Seconds to wait for a lock in the database. Only deletions and insertions of one process wait for each other, for a
#: few milliseconds each.
BUSY_S = 5

#: The files that SQLite keeps for one database.
SUFFIXES = (".sqlite", ".sqlite-wal", ".sqlite-shm")

#: One row per request. AUTOINCREMENT never reuses a number, so deleting what was sent cannot delete a later request.
#: `unreadable` has requests that no program of this version can have written, and requests that the broker refuses for
#: good. They are kept for a person to inspect; programs of the version before keep them, too. `refused` says which of
#: them the broker refused.
SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    events INTEGER NOT NULL,
    body   BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS unreadable (number INTEGER PRIMARY KEY, events INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS refused (number INTEGER PRIMARY KEY, reason TEXT NOT NULL);
"""
#: A process that adopts a file sends refused requests once more, because the cause may have been fixed by then.
TRY_REFUSED_AGAIN = """
BEGIN IMMEDIATE;
INSERT INTO requests (events, body) SELECT events, body FROM unreadable JOIN refused USING (number) ORDER BY number;
DELETE FROM unreadable WHERE number IN (SELECT number FROM refused);
DELETE FROM refused;
COMMIT;
"""


class OutboxFile:
    """An open file that this process owns. One thread writes it; another thread reads and empties it.

    Methods raise sqlite3.Error.
    """

    def __init__(self, path: Path, lock: int, max_bytes: int) -> None:
        self.path = path
        self._lock = lock
        _make_private(path)
        self._writer = _connect(path)
        # WAL: readers do not wait for the writer. FULL: a commit is on the disk before it returns.
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute("PRAGMA synchronous = FULL")
        self.limit(max_bytes)
        self._writer.executescript(f"BEGIN;{SCHEMA}COMMIT;")
        self._writer.execute(f"PRAGMA user_version = {VERSION}")
        self._reader = _connect(path)
        # If a power cut undoes a deletion, the same ids are only sent again.
        self._reader.execute("PRAGMA synchronous = NORMAL")
        self._reader.executescript(TRY_REFUSED_AGAIN)
        #: Events committed, counted by the writing thread, and events safe elsewhere, counted by the reading thread.
        #: There is no lock. A commit is counted a moment after it can be read, so the difference may be negative for
        #: that moment.
        self.stored: int = self._reader.execute("SELECT coalesce(sum(events), 0) FROM requests").fetchone()[0]
        self.sent = 0
        self._safe = self._deleted = 0
        #: Set when the file cannot be read. It is not written any more, and stays on disk for a person to inspect.
        self.damaged = False
        #: Requests that are sent in a message of their own.
        self._sent_separately: set[int] = set()

    @property
    def unsent(self) -> int:
        """Events that wait here, for metrics. To decide whether the file may be deleted, use `is_empty`."""
        return self.stored - self.sent

    @classmethod
    def create(cls, path: Path, max_bytes: int) -> Self:
        """Make a new file. Raises OSError or sqlite3.Error, and then leaves no file behind."""
        lock = file_lock.try_lock(path.with_suffix(".lock"))
        if lock is None:
            raise FileExistsError(f"{path} belongs to another process")
        try:
            return cls(path, lock, max_bytes)
        except BaseException:
            _remove(path, lock)
            raise

    @classmethod
    def adopt(cls, path: Path) -> Self | None:
        """Adopt the file of a process that is gone. None if its owner lives.

        Raises OtherOutboxVersion, sqlite3.Error.
        """
        lock = file_lock.try_lock(path.with_suffix(".lock"))
        if lock is None:
            return None
        try:
            _check_version(path)
            return cls(path, lock, max_bytes=PAGE_BYTES * 2**30)
        except BaseException:
            os.close(lock)
            raise

    def limit(self, max_bytes: int) -> None:
        """Limit the file's size: larger writes fail from now on. The file never shrinks because of it."""
        self._writer.execute(f"PRAGMA max_page_count = {max(max_bytes // PAGE_BYTES, SMALLEST_PAGES)}")

    def append(self, requests: Sequence[tuple[int, bytes]]) -> None:
        """Commit these requests (number of events, encoded events) together: all of them or none."""
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.executemany("INSERT INTO requests (events, body) VALUES (?, ?)", requests)
            self._writer.execute("COMMIT")
            self.stored += sum(events for events, _ in requests)
        except sqlite3.Error:
            if self._writer.in_transaction:  # SQLite ends some transactions by itself, for example if the disk is full
                self._writer.execute("ROLLBACK")
            raise

    def oldest(self, events: int) -> list[tuple[int, int, bytes]]:
        """Return the first requests as (number, how many events, the events): at most this many events,
        or one request.
        """
        rows: list[tuple[int, int, bytes]] = []
        query = "SELECT number, events, body FROM requests WHERE number > ? ORDER BY number"
        with closing(self._reader.execute(query, (self._safe,))) as found:
            for row in found:
                events -= row[1]
                if rows and (events < 0 or {row[0], rows[-1][0]} & self._sent_separately):
                    break
                rows.append(row)
        return rows

    def mark_sent(self, number: int, events: int) -> None:
        """Mark the requests up to this number as safe elsewhere. `oldest` no longer returns them;
        `sweep` deletes them.
        """
        self._safe = number
        self.sent += events
        self._sent_separately.discard(number)

    def put_aside(self, number: int, events: int, reason: str | None = None) -> None:
        """Move a request aside that cannot be read, or that the broker refuses for this reason. It then blocks no
        others.
        """
        with self._transaction():
            self._reader.execute("INSERT INTO unreadable SELECT * FROM requests WHERE number = ?", (number,))
            self._reader.execute("DELETE FROM requests WHERE number = ?", (number,))
            if reason is not None:
                self._reader.execute("INSERT INTO refused VALUES (?, ?)", (number, reason))
        self.sent += events

    def replace(self, number: int, requests: Sequence[tuple[int, bytes]]) -> None:
        """Replace all requests up to this number with these (how many events, the encoded events), at the end of the
        file.

        Each is then sent in a message of its own. They must contain the same events.
        """
        query = "INSERT INTO requests (events, body) VALUES (?, ?)"
        with self._transaction():
            self._reader.execute("DELETE FROM requests WHERE number <= ?", (number,))
            numbers = {self._reader.execute(query, request).lastrowid or 0 for request in requests}
        self._sent_separately |= numbers
        self._safe = self._deleted = number

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Run the reader's changes inside it as one transaction."""
        self._reader.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._reader.execute("COMMIT")
        except sqlite3.Error:
            if self._reader.in_transaction:
                self._reader.execute("ROLLBACK")
            raise

    def sweep(self) -> None:
        """Delete the requests that are safe elsewhere. On a full disk deletions fail, too; then a later
        sweep does it.
        """
        if self._deleted < self._safe:
            self._reader.execute("DELETE FROM requests WHERE number <= ?", (self._safe,))
            self._deleted = self._safe
            if self.path.stat().st_size > SHRINK_BYTES and self.is_empty():
                self._reader.execute("VACUUM")  # frees room for the files of other processes

    def is_empty(self) -> bool:
        """Return whether deleting the file would lose nothing."""
        query = "SELECT EXISTS (SELECT 1 FROM requests WHERE number > ?) OR EXISTS (SELECT 1 FROM unreadable)"
        return not self._reader.execute(query, (self._safe,)).fetchone()[0]

    def close(self) -> bool:
        """Release the file. Removes it if it is empty (True), or leaves it for another process to adopt.

        No thread may write any more. If the file cannot be read, it is left in place.
        """
        try:
            empty = self.is_empty()
        except sqlite3.Error:
            empty = False
        self._reader.close()
        self._writer.close()
        if empty:
            _remove(self.path, self._lock)
        else:
            os.close(self._lock)
        return empty


def _check_version(path: Path) -> None:
    with closing(_connect(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and version != VERSION:
        raise OtherOutboxVersion(f"{path.name} holds events of version {version}; this program knows {VERSION}")


def _make_private(path: Path) -> None:
    """Make the file readable by its owner only, because viewing history is private. SQLite's other files get the same
    mode.
    """
    path.touch(mode=0o600)
    for suffix in SUFFIXES:
        with suppress(OSError):  # it is missing, or belongs to another user and is readable
            path.with_suffix(suffix).chmod(0o600)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)


def _remove(path: Path, lock: int) -> None:
    """Remove the database, and the lock last. As long as the lock exists and is held, no other process
    uses the name.
    """
    try:
        for suffix in (*SUFFIXES, ".lock"):
            path.with_suffix(suffix).unlink(missing_ok=True)
    finally:
        os.close(lock)
