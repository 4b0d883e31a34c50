"""The outbox: stores view events on this machine's disk while the broker cannot take them.

Each process writes its own file (`outbox_writer`). When the broker is back, the process sends the events, oldest first,
and deletes them. If a process is gone, another process adopts its file (`outbox_adoption`). So committed events survive
the process and do not depend on its restart.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import msgspec
import structlog

from service import metrics
from streaming_app.recording.outbox_adoption import ADOPT_EVERY_S, OutboxAdoption
from streaming_app.recording.outbox_file import OutboxFile
from streaming_app.recording.outbox_writer import OutboxWriter, bytes_of
from view_events.event import ViewEvent

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """The oldest events of one file, for one message to the broker."""

    file: OutboxFile
    last_number: int
    events: list[ViewEvent]
    count: int


class Outbox:
    """The outbox of this process. It stores events at any time and returns them oldest first.

    Call `open` after the process has forked. Any thread may call `put`; only one thread calls the other methods.
    """

    def __init__(self, folder: Path, max_bytes: int, *, clock: Callable[[], float] = monotonic) -> None:
        self.folder = folder
        self._clock = clock
        self._writer = OutboxWriter(folder, max_bytes, on_commit=self._show_events, clock=clock)
        self._adoption = OutboxAdoption(folder, self._writer)
        self._adopt_at = 0.0
        #: Damaged files. Their locks are kept, so that no other process adopts them meanwhile.
        self._damaged: list[OutboxFile] = []
        #: `OutboxWriter.put` itself: a method that only calls it would cost every request a call.
        self.put = self._writer.put

    @property
    def events(self) -> int:
        """How many events wait here for the broker."""
        return sum(file.unsent for file in self._files())

    @property
    def usable(self) -> bool:
        """False after a failed commit, for example because the disk is full. True again after a commit or a send
        succeeds.
        """
        return self._writer.usable

    @usable.setter
    def usable(self, usable: bool) -> None:
        self._writer.usable = usable

    def open(self) -> None:
        """Make the folder, and start the thread that commits. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._writer.start()

    def close(self, timeout_s: float = 1) -> None:
        """Commit the waiting events and release the files. Another process may adopt the files that are not empty."""
        if not self._writer.stop(timeout_s):
            return  # the disk hangs; the kernel releases the locks when this process ends
        for file in [*self._files(), *self._damaged]:
            with suppress(OSError):
                file.close()
        self._writer.file, self._adoption.files, self._damaged = None, [], []
        metrics.streaming().outbox_events.set(0)

    def oldest(self, events: int) -> OutboxMessage | None:
        """Return the oldest events: at most this many, or one request. They stay in the file until `done`."""
        for file in self._files():
            if not file.unsent:
                continue
            try:
                if message := _message(file, events):
                    return message
            except sqlite3.OperationalError:
                raise  # a passing error
            except sqlite3.DatabaseError as error:
                # The file is damaged. It stays on disk for a person to inspect, and the other files are processed.
                log.warning("an outbox file cannot be read, put aside", file=str(file.path), reason=str(error))
                file.damaged = True
                self._damaged.append(file)
                self._adoption.skip(file)
        return None

    def done(self, message: OutboxMessage) -> None:
        """Delete events that the broker has confirmed. If the process dies before this, they are sent twice, which is
        harmless: their ids are unique.
        """
        message.file.mark_sent(message.last_number, message.count)
        self._sweep(message.file)
        self._show_events()
        self.usable = True

    def split(self, message: OutboxMessage) -> None:
        """Send each half of these events in a message of its own, later, because the broker refuses the message.

        A single event is sent again, later. So other events do not wait behind it. Raises sqlite3.Error.
        """
        half = len(message.events) // 2
        parts = [part for part in (message.events[:half], message.events[half:]) if part]
        message.file.replace(message.last_number, [(len(part), msgspec.json.encode(part)) for part in parts])

    def put_aside(self, message: OutboxMessage, reason: str) -> None:
        """Put a single event aside, because the broker refuses it for good. Raises sqlite3.Error.

        The event stays in the file with the reason. A process that adopts the file tries it once more.
        """
        message.file.put_aside(message.last_number, message.count, reason)
        (event,) = message.events
        log.error("the broker refuses a view for good; it is put aside", event_id=str(event.event_id), reason=reason)
        metrics.streaming().outbox_refused.inc()

    def adopt_and_sweep(self) -> None:
        """Every ADOPT_EVERY_S: adopt the files of processes that are gone, and retry deletions that failed."""
        if self._clock() < self._adopt_at:
            return
        self._adopt_at = self._clock() + ADOPT_EVERY_S
        for file in self._files():
            self._sweep(file)
        if self._adoption.adopt():
            self._show_events()

    def _sweep(self, file: OutboxFile) -> None:
        try:
            file.sweep()
            self._adoption.close_if_empty(file)
        except (sqlite3.Error, OSError) as error:
            log.warning("the outbox cannot delete what was sent", reason=str(error))

    def _files(self) -> list[OutboxFile]:
        own = self._writer.file
        return [*self._adoption.files, *([own] if own and not own.damaged else [])]

    def _show_events(self) -> None:
        metrics.streaming().outbox_events.set(self.events)


def _message(file: OutboxFile, events: int) -> OutboxMessage | None:
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
    return OutboxMessage(file, last, found, count) if found else None


def bytes_in(folder: Path) -> int:
    """Return the bytes of all outbox files in a folder, whoever owns them."""
    return bytes_of(folder.glob("*"))


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
