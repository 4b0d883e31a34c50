"""Stores the metadata and the id of each video in a SQLite file that all web processes share.

An id belongs to a film, not to a file name. A renamed or moved file keeps its id, and so its place in every history. If
another film gets an old name, it gets a new id. Hashes of the content distinguish films; docs/decisions/ has the
alternatives.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import time
from typing import TypeVar

import msgspec
import structlog

from streaming_app.videos.titles import ID_CHARS, short_hash
from streaming_app.videos.video_reader import BEGINNING, Metadata, Samples

log = structlog.get_logger(__name__)

#: Seconds to wait for a process that has begun to read a file. Reading a file takes less.
CLAIM_S = 20.0
#: If this many attempts to read a file began and none finished, the file is assumed to kill the process that reads it.
ATTEMPTS = 3
#: Seconds until a broken file is read again. If an upload goes on, the file changes and is read again at once. A file
#: that took all the permitted memory or time is tried again later than this.
BROKEN_RETRY_S = 60.0
COSTLY_RETRY_S = 3_600.0
#: At most this many films with the same beginning are compared with a new file. If there are more, they are copies of
#: each other.
SAME_BEGINNING = 100
#: Seconds after which a missing video is forgotten: as long as its views are kept, and some more.
FORGET_S = 460 * 86_400.0
BUSY_S = 5.0

NEVER_ENDS = "reading it never ended"

SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    name          TEXT PRIMARY KEY,
    id            TEXT NOT NULL,              -- empty: it is being read for the first time
    size_bytes    INTEGER NOT NULL,
    mtime_ns      INTEGER NOT NULL,
    metadata      BLOB,
    broken        TEXT,
    retry_at      REAL NOT NULL DEFAULT 0,
    claimed_until REAL NOT NULL DEFAULT 0,
    claimed       TEXT NOT NULL DEFAULT '',   -- size and time of the file that is being read, or was when all ended
    attempts      INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS films (
    id        TEXT PRIMARY KEY,
    beginning TEXT NOT NULL DEFAULT '',       -- the first of the samples
    samples   BLOB,
    title     TEXT,
    seen_at   REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS films_beginning ON films (beginning);
CREATE INDEX IF NOT EXISTS files_id ON files (id);
"""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the folder: its name, size and time. `id_by_name` is its id until something else is known."""

    name: str
    id_by_name: str
    size_bytes: int
    mtime_ns: int

    @property
    def state(self) -> str:
        """A string that changes when the file changes."""
        return f"{self.size_bytes}-{self.mtime_ns}"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a file with this size and time. If both `metadata` and `broken` are None, it has
    not been read.
    """

    id: str
    size_bytes: int
    mtime_ns: int
    metadata: Metadata | None = None
    broken: str | None = None
    retry_at: float = 0.0

    def is_of(self, file: File) -> bool:
        """Return whether the file is unchanged since then."""
        return (self.size_bytes, self.mtime_ns) == (file.size_bytes, file.mtime_ns)

    def is_read(self, file: File, now: float) -> bool:
        """Return whether reading the file again would bring nothing new."""
        return self.is_of(file) and (self.metadata is not None or (self.broken is not None and now < self.retry_at))


#: A function that says whether the file of this name exists with this size and time.
IsThere = Callable[[str, int, int], bool]


class CatalogueStore:
    """The store. Any thread may call its methods.

    If the disk cannot be written, everything stays in memory: ids are made from names, and each process reads all
    files.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._opened: sqlite3.Connection | None = None

    def files(self) -> dict[str, Known]:
        """Return what is known, by file name."""
        with self._lock:
            rows = self._database().execute(
                "SELECT name, id, size_bytes, mtime_ns, metadata, broken, retry_at FROM files"
            )
            return {
                name: Known(video_id, size, mtime, _decoded(content, Metadata), broken, retry_at)
                for name, video_id, size, mtime, content, broken, retry_at in rows
                if video_id
            }

    def films(self) -> dict[str, str | None]:
        """Return the title of every known video, by id. Includes videos that are gone."""
        with self._lock:
            return dict(self._database().execute("SELECT id, title FROM films").fetchall())

    def add(self, files: Iterable[File]) -> None:
        """Give new files an id made from the name, or a different id if another film has that one."""
        with self._transaction() as database:
            for file in files:
                if not _id_of(database, file):
                    _put(database, file, _free_id(database, file, ""))

    def claim(self, file: File) -> bool:
        """Try to reserve the file for this process. False if another process reads it, if it is read already, or if it
        ended the processes that tried.

        The claim is written to disk *before* the file is opened. So a file that kills its reader is tried ATTEMPTS
        times at most.
        """
        now = time()
        with self._transaction() as database:
            row = database.execute("SELECT * FROM files WHERE name = ?", [file.name]).fetchone()
            if row is not None:
                _, video_id, size, mtime, content, broken, retry_at, claimed_until, claimed, attempts = row
                known = Known(video_id, size, mtime, _decoded(content, Metadata), broken, retry_at)
                if claimed_until > now or known.is_read(file, now):
                    return False
                attempts = attempts if claimed == file.state else 0
                if attempts >= ATTEMPTS:
                    _put_broken(database, file, NEVER_ENDS, COSTLY_RETRY_S)
                    return False
            else:
                attempts = 0
            database.execute(
                "INSERT INTO files (name, id, size_bytes, mtime_ns) VALUES (?, '', -1, -1) ON CONFLICT DO NOTHING",
                [file.name],
            )
            database.execute(
                "UPDATE files SET claimed_until = ?, claimed = ?, attempts = ? WHERE name = ?",
                [now + CLAIM_S, file.state, attempts + 1, file.name],
            )
            return True

    def release(self, file: File) -> None:
        """Undo a claim, because nothing could be found out about the file."""
        with self._transaction() as database:
            database.execute("UPDATE files SET claimed_until = 0, attempts = 0 WHERE name = ?", [file.name])

    def put_broken(self, file: File, reason: str, *, costly: bool) -> Known:
        """Store that the file cannot be read. It keeps its id, because nothing says that it is another film."""
        with self._transaction() as database:
            return _put_broken(database, file, reason, COSTLY_RETRY_S if costly else BROKEN_RETRY_S)

    def put(self, file: File, metadata: Metadata, is_there: IsThere) -> Known:
        """Store what was read. The file keeps its id if it is the same film, or gets the id of the film that it
        contains.
        """
        with self._transaction() as database:
            video_id = _film_of(database, file, metadata.samples, is_there)
            _put(database, file, video_id, metadata=msgspec.msgpack.encode(metadata))
            database.execute("UPDATE films SET title = ? WHERE id = ?", [metadata.title, video_id])
            if metadata.samples:
                content = msgspec.msgpack.encode(metadata.samples)
                beginning = metadata.samples.get(BEGINNING, "")
                database.execute(
                    "UPDATE films SET beginning = ?, samples = ? WHERE id = ?", [beginning, content, video_id]
                )
        return Known(video_id, file.size_bytes, file.mtime_ns, metadata)

    def seen(self, ids: Iterable[str]) -> None:
        """Store that these videos are in the folder now. Videos that have been missing for FORGET_S are forgotten."""
        now = time()
        with self._transaction() as database:
            database.executemany("UPDATE films SET seen_at = ? WHERE id = ?", [(now, video_id) for video_id in ids])
            database.execute("DELETE FROM films WHERE seen_at < ?", [now - FORGET_S])
            database.execute("DELETE FROM files WHERE id NOT IN (SELECT id FROM films) AND claimed_until < ?", [now])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction. No other process writes meanwhile."""
        with self._lock:
            database = self._database()
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    def _database(self) -> sqlite3.Connection:
        # Opened at the first use, in the web process, because a connection does not survive a fork.
        if self._opened is None:
            self._opened = _open(self._path)
            weakref.finalize(self, self._opened.close)
        return self._opened


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _connect(str(path))
        except sqlite3.OperationalError:  # the file is read-only or busy
            raise
        except sqlite3.DatabaseError as error:
            log.warning("the catalogue's cache is damaged and begun anew", path=str(path), reason=str(error))
            for end in ("", "-wal", "-shm"):
                path.with_name(f"{path.name}{end}").unlink(missing_ok=True)
            return _connect(str(path))
    except (OSError, sqlite3.Error) as error:
        log.warning("the catalogue is not cached", path=str(path), reason=str(error))
        return _connect(":memory:")


def _connect(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        # A power cut may undo the last seconds. Those files are read again.
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(SCHEMA)
        said = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except BaseException:
        database.close()
        raise
    if said != "ok":
        database.close()
        raise sqlite3.DatabaseError(said)
    return database


T = TypeVar("T")


def _decoded(content: bytes | None, kind: type[T]) -> T | None:
    """Decode a stored value. None if another version wrote it: the file is then read again."""
    if content is None:
        return None
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except msgspec.MsgspecError:
        return None


def _id_of(database: sqlite3.Connection, file: File) -> str:
    row = database.execute("SELECT id FROM files WHERE name = ?", [file.name]).fetchone()
    return str(row[0]) if row else ""


def _put(database: sqlite3.Connection, file: File, video_id: str, **known: object) -> None:
    values = {"name": file.name, "id": video_id, "size_bytes": file.size_bytes, "mtime_ns": file.mtime_ns, **known}
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    database.execute(f"INSERT OR REPLACE INTO files ({names}) VALUES ({marks})", [*values.values()])  # noqa: S608 (ours)
    database.execute("INSERT INTO films (id, seen_at) VALUES (?, ?) ON CONFLICT DO NOTHING", [video_id, time()])


def _put_broken(database: sqlite3.Connection, file: File, reason: str, retry_after_s: float) -> Known:
    video_id = _id_of(database, file) or _free_id(database, file, "")
    retry_at = time() + retry_after_s
    _put(database, file, video_id, broken=reason, retry_at=retry_at)
    return Known(video_id, file.size_bytes, file.mtime_ns, None, reason, retry_at)


def _film_of(database: sqlite3.Connection, file: File, samples: Samples, is_there: IsThere) -> str:
    """Return the id of the film in this file: the file's own id, the id of a film that was moved here, or a new one."""
    own = _id_of(database, file)
    known = _samples(database, own)
    if own and (not samples or not known or _same(known, samples)):
        return own
    beginning = samples.get(BEGINNING, "")
    rows = database.execute(
        "SELECT id FROM films WHERE beginning = ? AND beginning <> '' LIMIT ?", [beginning, SAME_BEGINNING]
    ).fetchall()
    others = [other for (other,) in rows if _same(_samples(database, other), samples)]
    files = {
        other: database.execute("SELECT name, size_bytes, mtime_ns FROM files WHERE id = ?", [other]).fetchall()
        for other in others
    }
    # Among equal copies, prefer the one that had this name in another folder.
    others.sort(
        key=lambda other: any(Path(name).name == Path(file.name).name for name, _, _ in files[other]), reverse=True
    )
    for other in others:
        # If the other file still exists, this file is a copy, and the copy is a video of its own.
        if not any(is_there(name, size, mtime) for name, size, mtime in files[other] if name != file.name):
            database.execute("DELETE FROM files WHERE id = ? AND name <> ?", [other, file.name])
            log.info("video recognised under another name", id=other, name=file.name)
            return str(other)
    return _free_id(database, file, beginning)


def _samples(database: sqlite3.Connection, video_id: str) -> Samples:
    row = database.execute("SELECT samples FROM films WHERE id = ?", [video_id]).fetchone()
    return _decoded(row[0] if row else None, Samples) or {}


def _same(known: Samples, samples: Samples) -> bool:
    """Return whether two sets of samples are of one film. A grown recording has more samples; those in both sets must
    be equal.
    """
    common = known.keys() & samples.keys()
    return bool(common) and all(known[second] == samples[second] for second in common)


def _free_id(database: sqlite3.Connection, file: File, beginning: str) -> str:
    """Return the id made from the name or, if another film has had it, an id that was never used."""
    for video_id in _ids_for(file, beginning):
        if database.execute("SELECT 1 FROM films WHERE id = ?", [video_id]).fetchone() is None:
            return video_id
    raise AssertionError("unreachable")


def _ids_for(file: File, beginning: str) -> Iterator[str]:
    yield file.id_by_name
    yield f"{file.id_by_name[:ID_CHARS]}-{short_hash(file.name)}"
    for number in count():
        yield f"{file.id_by_name[:ID_CHARS]}-{short_hash(f'{file.name} {beginning} {number}')}"
