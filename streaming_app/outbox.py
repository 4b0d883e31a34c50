"""The outbox: view events on this machine's disk, while the broker cannot take them.

Each process writes a file of its own, and empties it, oldest first, when the broker is back. The file of a process that
is gone is taken over by any other. So what was committed here outlives the process, and waits for no particular one.
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

from streaming_app.errors import NotAccepted
from streaming_app.outbox_file import OtherVersion, OutboxFile
from view_events import metrics
from view_events.event import ViewEvent, by_trace, new_event_id

log = structlog.get_logger(__name__)

#: How often to look for files whose owner is gone.
LOOK_EVERY_S = 2
#: Events that may wait for a commit. The disk takes thousands in one; more than this means that it takes none.
WAITING_EVENTS = 50_000
#: How often to look how much room the files of other processes leave.
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
    """One request, before its commit."""

    events: Sequence[ViewEvent]
    body: bytes
    stored: Future[None]


class Outbox:
    """This process's outbox: takes events at any time, gives them back oldest first.

    `open` it after the process has forked. `put` may be called by any thread; the rest by one.
    """

    def __init__(self, folder: Path, max_bytes: int, *, clock: Callable[[], float] = monotonic) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._stopping = False
        self._own: OutboxFile | None = None
        self._adopted: list[OutboxFile] = []
        self._aside: list[OutboxFile] = []
        self._left_alone: set[Path] = set()
        self._complained: set[Path] = set()
        self._look_at = self._measure_at = 0.0
        self._count = 0
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        #: False after a commit failed: the disk is full, say. True again once one succeeds or something was sent.
        self.usable = True

    @property
    def events(self) -> int:
        """How many wait here for the broker."""
        return sum(file.left for file in self._files())

    def open(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._thread.start()

    def close(self, timeout_s: float = 1) -> None:
        """Commit what waits, and let go of the files; those that are not empty are for another process."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            return  # the disk is stuck; the kernel lets go of the locks when this process is gone
        for file in [*self._files(), *self._aside]:
            with suppress(OSError):
                file.close()
        self._own, self._adopted, self._aside = None, [], []
        metrics.streaming().outbox_events.set(0)

    # -- in ---------------------------------------------------------------------------------------------

    def put(self, events: Sequence[ViewEvent]) -> Future[None]:
        """Commit these events together; the future ends with None once they are on the disk, or with NotAccepted."""
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
        """Group commit: what arrives while one commit is under way goes together into the next."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                group, self._waiting, self._count = self._waiting, [], 0
            if not group:
                return
            # Those that have been given up meanwhile (cancelled) were told 503.
            group = [waiting for waiting in group if waiting.stored.set_running_or_notify_cancel()]
            try:
                self._commit(group)
            except Exception as error:  # whatever it is: the thread goes on, and nobody is told 202
                log.exception("the outbox failed")
                for waiting in group:
                    if not waiting.stored.done():
                        waiting.stored.set_exception(NotAccepted(f"the outbox failed ({error})"))

    def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            if self._own is None or self._own in self._aside:
                # Names in the order of time: adopted files are emptied oldest first.
                path = self._folder / f"{new_event_id().hex}.sqlite"
                self._own = OutboxFile.create(path, self._room())
            elif self._clock() >= self._measure_at:
                self._own.limit(self._room())
            self._own.append([(len(waiting.events), waiting.body) for waiting in group])
        except (sqlite3.Error, OSError) as error:
            if self.usable:
                log.warning("the outbox cannot store views", folder=str(self._folder), reason=str(error))
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
        # Last: nobody has to wait for it.
        log.info("stored in the outbox", events=len(events), views=by_trace(events))

    def _room(self) -> int:
        """Bytes that our own file may take: what all others in the folder leave of the limit."""
        self._measure_at = self._clock() + MEASURE_EVERY_S
        own = self._own.path if self._own and self._own not in self._aside else None
        # What was committed last may lie in the log beside the database.
        others = (path for path in self._folder.glob("*.sqlite*") if not own or path.stem != own.stem)
        return max(self._max_bytes - _bytes_of(others), 0)

    # -- out --------------------------------------------------------------------------------------------

    def take(self, events: int) -> Parcel | None:
        """The oldest events that wait here, at most so many or one request. They stay until `done`."""
        for file in self._files():
            if not file.left:
                continue
            try:
                if parcel := self._parcel(file, events):
                    return parcel
            except sqlite3.OperationalError:
                raise  # it may pass
            except sqlite3.DatabaseError as error:
                # Damaged. It stays as it is, for somebody to look at, and the others go on.
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
        """The broker has confirmed them. Dying before this line sends them again: harmless, their ids are unique."""
        parcel.file.forget(parcel.last_number, parcel.count)
        self._sweep(parcel.file)
        metrics.streaming().outbox_events.set(self.events)
        self.usable = True

    def _sweep(self, file: OutboxFile) -> None:
        try:
            file.sweep()
            if file in self._adopted and not file.left:
                self._adopted.remove(file)
                if file.close():
                    log.info("adopted outbox is empty", file=file.path.name)
                else:
                    self._left_alone.add(file.path)  # with what cannot be read
        except (sqlite3.Error, OSError) as error:
            log.warning("the outbox cannot delete what was sent", reason=str(error))

    def look_after_files(self) -> None:
        """From time to time, take over the files of processes that are gone, and delete what could not be deleted."""
        if self._clock() < self._look_at:
            return
        self._look_at = self._clock() + LOOK_EVERY_S
        for file in self._files():
            self._sweep(file)
        ours = {file.path for file in self._files()} | self._left_alone
        for lock in sorted(self._folder.glob("*.lock")):
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
        except (OtherVersion, sqlite3.DatabaseError, OSError) as error:
            # A full disk passes. What is broken, somebody else's or from another version needs a person's eyes, and
            # nothing is deleted.
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
    """What all outbox files in a folder take together, whoever owns them."""
    return _bytes_of(folder.glob("*"))


def _bytes_of(paths: Iterable[Path]) -> int:
    total = 0
    for path in paths:
        with suppress(FileNotFoundError):  # just removed, empty
            total += path.stat().st_size
    return total


def waiting_in(folder: Path) -> int:
    """Events in all outbox files of a folder, whoever owns them. Raises sqlite3.Error.

    For somebody who looks on from outside, such as a test that waits until everything has arrived.
    """
    total = 0
    for path in sorted(folder.glob("*.sqlite")):
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                total += connection.execute("SELECT coalesce(sum(events), 0) FROM requests").fetchone()[0]
        except sqlite3.OperationalError as error:
            # Just made, without its table yet; or just removed, empty.
            if path.exists() and "no such table" not in str(error):
                raise
    return total
