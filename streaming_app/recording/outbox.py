"""The outbox: stores view events on this machine's disk while the broker cannot take them.

Each process writes its own file. When the broker is back, the process sends the events, oldest first, and deletes them.
If a process is gone, another process adopts its file. So committed events survive the process and do not depend on its
restart.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import msgspec
import structlog

from service import metrics
from streaming_app.recording.errors import NotAccepted, OtherOutboxVersion
from streaming_app.recording.outbox_file import OutboxFile
from view_events.event import ViewEvent, by_trace, new_event_id

log = structlog.get_logger(__name__)

#: Seconds between two searches for files whose owner is gone.
LOOK_EVERY_S = 2
#: Events that may wait for a commit. A working disk commits thousands at once, so more than this means that it does not
#: write.
WAITING_EVENTS = 50_000
#: Seconds between two measurements of how much room the files of other processes leave.
MEASURE_EVERY_S = 1


@dataclass(frozen=True, slots=True)
class Parcel:
    """The oldest events of one file, on their way to the broker."""

    file: OutboxFile
    last_number: int
    events: list[ViewEvent]
    count: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The events of one request that wait for their commit."""

    events: Sequence[ViewEvent]
    body: bytes
    stored: Future[None]


class Outbox:
    """The outbox of this process. It stores events at any time and returns them oldest first.

    Call `open` after the process has forked. Any thread may call `put`; one thread only calls the other methods.
    """

    def __init__(self, folder: Path, max_bytes: int, *, clock: Callable[[], float] = monotonic) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._stopping = False
        self._own: OutboxFile | None = None
        self._making: Path | None = None
        self._adopted: list[OutboxFile] = []
        self._aside: list[OutboxFile] = []
        self._left_alone: set[Path] = set()
        self._complained: set[Path] = set()
        self._look_at = self._measure_at = 0.0
        self._count = 0
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        #: False after a failed commit, for example because the disk is full. True again after a commit or a send
        #: succeeds.
        self.usable = True

    @property
    def events(self) -> int:
        """How many events wait here for the broker."""
        return sum(file.left for file in self._files())

    def open(self) -> None:
        """Make the folder, and start the thread that commits. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._thread.start()

    def close(self, timeout_s: float = 1) -> None:
        """Commit the waiting events and release the files. Another process may adopt the files that are not empty."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            return  # the disk hangs; the kernel releases the locks when this process ends
        for file in [*self._files(), *self._aside]:
            with suppress(OSError):
                file.close()
        self._own, self._adopted, self._aside = None, [], []
        metrics.streaming().outbox_events.set(0)

    # -- in ---------------------------------------------------------------------------------------------

    def put(self, events: Sequence[ViewEvent]) -> Future[None]:
        """Commit these events together. The future ends with None when they are on the disk, or with NotAccepted."""
        waiting = _Waiting(events, msgspec.json.encode(events), Future())
        with self._changed:
            if self._stopping or self._count + len(events) > WAITING_EVENTS:
                waiting.stored.set_exception(NotAccepted("the outbox cannot keep up"))
            else:
                self._waiting.append(waiting)
                self._count += len(events)
                self._changed.notify()
        return waiting.stored

    def _run(self) -> None:
        """Commit in groups: requests that arrive during one commit share the next one."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                group, self._waiting, self._count = self._waiting, [], 0
            if not group:
                return
            # A cancelled request has been answered with 503 already.
            group = [waiting for waiting in group if waiting.stored.set_running_or_notify_cancel()]
            try:
                self._commit(group)
            except Exception as error:  # whatever it is, go on, and answer no request with 202
                log.exception("the outbox failed")
                for waiting in group:
                    if not waiting.stored.done():
                        waiting.stored.set_exception(NotAccepted(f"the outbox failed ({error})"))

    def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            if self._own is None or self._own in self._aside:
                # Names sort by time, so that adopted files are emptied oldest first.
                path = self.folder / f"{new_event_id().hex}.sqlite"
                self._making = path  # the file is ours from its first byte, so `look_after_files` must not adopt it
                self._own = OutboxFile.create(path, self._room())
            elif self._clock() >= self._measure_at:
                self._own.limit(self._room())
            self._own.append([(len(waiting.events), waiting.body) for waiting in group])
        except (sqlite3.Error, OSError) as error:
            if self.usable:
                log.warning("the outbox cannot store views", folder=str(self.folder), reason=str(error))
            self.usable = False
            for waiting in group:
                waiting.stored.set_exception(NotAccepted(f"the outbox cannot store it ({error})"))
            return
        if not self.usable:
            log.info("the outbox stores views again")
        self.usable = True
        events = [event for waiting in group for event in waiting.events]
        metrics.streaming().outbox_stored.inc(len(events))
        metrics.streaming().outbox_events.set(self.events)
        for waiting in group:
            waiting.stored.set_result(None)
        # Logged last, because no request waits for it.
        log.info("stored in the outbox", events=len(events), views=by_trace(events))

    def _room(self) -> int:
        """Return how many bytes our own file may take: the limit less all other files in the folder."""
        self._measure_at = self._clock() + MEASURE_EVERY_S
        own = self._own.path if self._own and self._own not in self._aside else None
        # The latest commits may still be in the write-ahead log (`.sqlite-wal`), so all files are counted.
        others = (path for path in self.folder.glob("*.sqlite*") if not own or path.stem != own.stem)
        return max(self._max_bytes - _bytes_of(others), 0)

    # -- out --------------------------------------------------------------------------------------------

    def take(self, events: int) -> Parcel | None:
        """Return the oldest events: at most this many, or one request. They stay in the file until `done`."""
        for file in self._files():
            if not file.left:
                continue
            try:
                if parcel := self._parcel(file, events):
                    return parcel
            except sqlite3.OperationalError:
                raise  # a passing error
            except sqlite3.DatabaseError as error:
                # The file is damaged. It stays on disk for a person to look at, and the other files are processed.
                log.warning("an outbox file cannot be read, put aside", file=str(file.path), reason=str(error))
                self._aside.append(file)
                self._left_alone.add(file.path)
                if file in self._adopted:
                    self._adopted.remove(file)
        return None

    @staticmethod
    def _parcel(file: OutboxFile, events: int) -> Parcel | None:
        found: list[ViewEvent] = []
        count = last = 0
        for number, size, body in file.oldest(events):
            try:
                found += msgspec.json.decode(body, type=list[ViewEvent])
            except msgspec.DecodeError as error:
                log.warning("a stored request cannot be read, put aside", file=str(file.path), reason=str(error))
                file.put_aside(number, size)
            else:
                count, last = count + size, number
        return Parcel(file, last, found, count) if found else None

    def done(self, parcel: Parcel) -> None:
        """Delete events that the broker has confirmed. If the process dies before this, they are sent twice, which is
        harmless: their ids are unique.
        """
        parcel.file.forget(parcel.last_number, parcel.count)
        self._sweep(parcel.file)
        metrics.streaming().outbox_events.set(self.events)
        self.usable = True

    def refused(self, parcel: Parcel, reason: str, *, for_good: bool) -> None:
        """Handle a message that the broker refuses, so that other events do not wait behind it. Raises sqlite3.Error.

        If the message has several events, each half is tried separately, later. A single event is tried again, or put
        aside if `for_good`. An event that was put aside stays in the file with the reason. A process that adopts the
        file tries it once more.
        """
        size = len(parcel.events)
        if size == 1 and for_good:
            parcel.file.put_aside(parcel.last_number, parcel.count, reason)
            event = parcel.events[0]
            log.error(
                "the broker refuses a view for good; it is put aside", event_id=str(event.event_id), reason=reason
            )
            metrics.streaming().outbox_refused.inc()
            return
        parts = [part for part in (parcel.events[: size // 2], parcel.events[size // 2 :]) if part]
        parcel.file.replace(parcel.last_number, [(len(part), msgspec.json.encode(part)) for part in parts])

    def _sweep(self, file: OutboxFile) -> None:
        try:
            file.sweep()
            if file in self._adopted and not file.left:
                self._adopted.remove(file)
                if file.close():
                    log.info("adopted outbox is empty", file=file.path.name)
                else:
                    self._left_alone.add(file.path)  # the rest of the file cannot be read
        except (sqlite3.Error, OSError) as error:
            log.warning("the outbox cannot delete what was sent", reason=str(error))

    def look_after_files(self) -> None:
        """Every LOOK_EVERY_S: adopt the files of processes that are gone, and retry deletions that failed."""
        if self._clock() < self._look_at:
            return
        self._look_at = self._clock() + LOOK_EVERY_S
        for file in self._files():
            self._sweep(file)
        ours = {file.path for file in self._files()} | self._left_alone | {self._making}
        for lock in sorted(self.folder.glob("*.lock")):
            path = lock.with_suffix(".sqlite")
            if path not in ours:
                self._adopt(path)

    def _adopt(self, path: Path) -> None:
        try:
            file = OutboxFile.take_over(path)
            if file is None:
                return
            if not file.left:
                if not file.close():
                    self._left_alone.add(path)
                return
        except (OtherOutboxVersion, sqlite3.DatabaseError, OSError) as error:
            # A full disk is a passing problem. A damaged file, a file of another user or a file of another version
            # needs a person. Nothing is deleted.
            if isinstance(error, PermissionError) or not isinstance(error, sqlite3.OperationalError | OSError):
                self._left_alone.add(path)
            if path not in self._complained:
                log.warning("an outbox cannot be adopted", file=str(path), reason=str(error))
            self._complained.add(path)
            return
        self._adopted.append(file)
        log.info("adopted the outbox of a process that is gone", file=path.name, events=file.left)
        metrics.streaming().outbox_events.set(self.events)

    def _files(self) -> list[OutboxFile]:
        own = self._own
        return [*self._adopted, *([own] if own and own not in self._aside else [])]


def bytes_in(folder: Path) -> int:
    """Return the bytes of all outbox files in a folder, whoever owns them."""
    return _bytes_of(folder.glob("*"))


def _bytes_of(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        with suppress(FileNotFoundError):  # the file was empty and has just been removed
            total += path.stat().st_size
    return total


def waiting_in(folder: Path) -> int:
    """Count the events in all outbox files of a folder, whoever owns them. Raises sqlite3.Error.

    For outside observers, such as a test that waits until all events have arrived.
    """
    total = 0
    for path in sorted(folder.glob("*.sqlite")):
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
                total += connection.execute("SELECT coalesce(sum(events), 0) FROM requests").fetchone()[0]
        except sqlite3.OperationalError as error:
            # Ignore a file that was just made and has no table yet, or that was empty and has just been removed.
            if path.exists() and "no such table" not in str(error):
                raise
    return total
