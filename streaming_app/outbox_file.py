"""One outbox file: a SQLite database and the lock that says whose it is.

`NAME.lock` is made, and locked, before `NAME.sqlite`: whoever finds a lock that nobody holds may take the file over.
The kernel lets go of a lock when its process is gone, however it went, and not while it is only stopped.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Self

from view_events.event import VERSION

#: The smallest that SQLite makes of its own accord; `max_page_count` counts in it.
PAGE_BYTES = 4096
#: What the empty tables take.
SMALLEST_PAGES = 6
#: An empty file of this size is made small again.
SHRINK_BYTES = 4 * 1024 * 1024
#: Only deletions and insertions of one process wait for each other, each of a few milliseconds.
BUSY_S = 5

#: One row a request. AUTOINCREMENT: numbers are never used again, so `forget` cannot hit what came later.
#: `unreadable` has what no program of this version can have written: kept for somebody to look at.
SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    events INTEGER NOT NULL,
    body   BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS unreadable (number INTEGER PRIMARY KEY, events INTEGER NOT NULL, body BLOB NOT NULL);
"""


class OtherVersion(Exception):
    """The file was written by a program that knows other events. Raised by `OutboxFile.take_over`; it is left alone."""


class OutboxFile:
    """An open file that this process owns. Written by one thread, read and emptied by another.

    Methods raise sqlite3.Error.
    """

    def __init__(self, path: Path, lock: int, max_bytes: int) -> None:
        self.path = path
        self._lock = lock
        self._writer = _connect(path)
        # WAL: readers do not wait for the writer. FULL: a commit has reached the disk before it returns.
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute("PRAGMA synchronous = FULL")
        self.limit(max_bytes)
        self._writer.executescript(SCHEMA)
        self._writer.execute(f"PRAGMA user_version = {VERSION}")
        self._reader = _connect(path)
        # A deletion that a power cut undoes only sends the same ids again.
        self._reader.execute("PRAGMA synchronous = NORMAL")
        #: Events committed, counted by who writes; events safe elsewhere, counted by who reads. No lock: a commit is
        #: counted a moment after it can be read, so that their difference is below zero for that moment.
        self.stored: int = self._reader.execute("SELECT coalesce(sum(events), 0) FROM requests").fetchone()[0]
        self.sent = 0
        self._safe = self._deleted = 0

    @property
    def left(self) -> int:
        """Events that wait here, for figures. Whether the file may go is for `is_empty` to say."""
        return self.stored - self.sent

    @classmethod
    def create(cls, path: Path, max_bytes: int) -> Self:
        """A new file. Raises OSError or sqlite3.Error, and then leaves none behind."""
        lock = _take(path.with_suffix(".lock"))
        if lock is None:
            raise FileExistsError(f"{path} belongs to another process")
        try:
            return cls(path, lock, max_bytes)
        except BaseException:
            _remove(path, lock)
            raise

    @classmethod
    def take_over(cls, path: Path) -> Self | None:
        """The file of a process that is gone; None while its owner lives. Raises OtherVersion, sqlite3.Error."""
        lock = _take(path.with_suffix(".lock"))
        if lock is None:
            return None
        try:
            _check_version(path)
            return cls(path, lock, max_bytes=PAGE_BYTES * 2**30)
        except BaseException:
            os.close(lock)
            raise

    def limit(self, max_bytes: int) -> None:
        """From now on, refuse what would make the file larger than this. It never gets smaller by it."""
        self._writer.execute(f"PRAGMA max_page_count = {max(max_bytes // PAGE_BYTES, SMALLEST_PAGES)}")

    def append(self, requests: Sequence[tuple[int, bytes]]) -> None:
        """Commit these requests (how many events, the encoded events) together; all of them or none."""
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.executemany("INSERT INTO requests (events, body) VALUES (?, ?)", requests)
            self._writer.execute("COMMIT")
            self.stored += sum(events for events, _ in requests)
        except sqlite3.Error:
            if self._writer.in_transaction:  # SQLite ends some of them by itself, for example when the disk is full
                self._writer.execute("ROLLBACK")
            raise

    def oldest(self, events: int) -> list[tuple[int, int, bytes]]:
        """(number, how many events, the events) of the first requests: at most so many events, or one request."""
        rows: list[tuple[int, int, bytes]] = []
        query = "SELECT number, events, body FROM requests WHERE number > ? ORDER BY number"
        with closing(self._reader.execute(query, (self._safe,))) as found:
            for row in found:
                events -= row[1]
                if rows and events < 0:
                    break
                rows.append(row)
        return rows

    def forget(self, number: int, events: int) -> None:
        """So many events, up to this number, are safe elsewhere: `oldest` gives them no more, `sweep` deletes them."""
        self._safe = number
        self.sent += events

    def put_aside(self, number: int, events: int) -> None:
        """Take a request that cannot be read out of the way of the others."""
        self._reader.execute("INSERT INTO unreadable SELECT * FROM requests WHERE number = ?", (number,))
        self._reader.execute("DELETE FROM requests WHERE number = ?", (number,))
        self.sent += events

    def sweep(self) -> None:
        """Delete what is safe elsewhere. A full disk takes no deletion either: then a later sweep does it."""
        if self._deleted < self._safe:
            self._reader.execute("DELETE FROM requests WHERE number <= ?", (self._safe,))
            self._deleted = self._safe
            if self.path.stat().st_size > SHRINK_BYTES and self.is_empty():
                self._reader.execute("VACUUM")  # the room is for other processes' files, too

    def is_empty(self) -> bool:
        """Whether nothing would be lost with the file."""
        query = "SELECT EXISTS (SELECT 1 FROM requests WHERE number > ?) OR EXISTS (SELECT 1 FROM unreadable)"
        return not self._reader.execute(query, (self._safe,)).fetchone()[0]

    def close(self) -> bool:
        """Let go of the file: remove it when nothing is left in it (True), or leave it for another process.

        Nobody may write any more. What cannot be asked is left.
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
        raise OtherVersion(f"{path.name} holds events of version {version}; this program knows {VERSION}")


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)


def _take(path: Path) -> int | None:
    """The lock at this path, taken; None while another process has it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its owner may have removed it between the two lines above: then this is the lock of nothing.
        if path.stat().st_ino == os.fstat(lock).st_ino:
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def _remove(path: Path, lock: int) -> None:
    """The lock last: as long as it is there, and held, nobody else takes the name."""
    try:
        for suffix in (".sqlite", ".sqlite-wal", ".sqlite-shm", ".lock"):
            path.with_suffix(suffix).unlink(missing_ok=True)
    finally:
        os.close(lock)
