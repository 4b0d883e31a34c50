"""The file of the outbox that this process writes. Requests that arrive during one commit share the next one."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from service import metrics
from streaming_app.recording.errors import NotAccepted
from streaming_app.recording.outbox_file import OutboxFile
from view_events.event import ViewEvent, by_trace, new_event_id

log = structlog.get_logger(__name__)

#: Events that may wait for a commit. A working disk commits thousands at once, so more than this means that it does not
#: write.
WAITING_EVENTS = 50_000
#: Seconds between two measurements of how much room the files of other processes leave.
MEASURE_EVERY_S = 1


@dataclass(frozen=True, slots=True)
class _PendingCommit:
    """The events of one request that wait for their commit."""

    events: Sequence[ViewEvent]
    body: bytes
    stored: Future[None]


class OutboxWriter:
    """Commits events to this process's own file, in a thread of its own. Any thread may call `put`.

    `max_bytes`: the limit for all files of the folder together. `on_commit` is called after each commit, before the
    requests learn of it.
    """

    def __init__(
        self, folder: Path, max_bytes: int, *, on_commit: Callable[[], None], clock: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._on_commit = on_commit
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: list[_PendingCommit] = []
        self._count = 0
        self._stopping = False
        self._measure_at = 0.0
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        #: The own file, once there is one. Only this class's thread sets it. Other threads read it.
        self.file: OutboxFile | None = None
        #: Where the own file is, or is about to be. The file is ours from its first byte, so nobody must adopt it.
        self.path: Path | None = None
        #: False after a failed commit, for example because the disk is full. True again after a commit or a send
        #: succeeds.
        self.usable = True

    def start(self) -> None:
        """Start the thread that commits. The folder must exist by then."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Commit the waiting events and end the thread. False if it does not end in time, because the disk hangs."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def put(self, events: Sequence[ViewEvent]) -> Future[None]:
        """Commit these events together. The future ends with None when they are on the disk, or with NotAccepted."""
        pending = _PendingCommit(events, msgspec.json.encode(events), Future())
        with self._changed:
            if self._stopping or self._count + len(events) > WAITING_EVENTS:
                pending.stored.set_exception(NotAccepted("the outbox cannot keep up"))
            else:
                self._waiting.append(pending)
                self._count += len(events)
                self._changed.notify()
        return pending.stored

    def _run(self) -> None:
        """Commit in groups: requests that arrive during one commit share the next one."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                group, self._waiting, self._count = self._waiting, [], 0
            if not group:
                return
            # A cancelled request has been answered with 503 already.
            group = [pending for pending in group if pending.stored.set_running_or_notify_cancel()]
            try:
                self._commit(group)
            except Exception as error:  # whatever it is, go on, and answer no request with 202
                log.exception("the outbox failed")
                for pending in group:
                    if not pending.stored.done():
                        pending.stored.set_exception(NotAccepted(f"the outbox failed ({error})"))

    def _commit(self, group: Sequence[_PendingCommit]) -> None:
        try:
            if self.file is None or self.file.damaged:
                try:
                    self.file = self._create()
                except FileExistsError:  # another process adopted the file before it was locked, and removed it
                    self.file = self._create()
            elif self._clock() >= self._measure_at:
                self.file.limit(self._room())
            self.file.append([(len(pending.events), pending.body) for pending in group])
        except (sqlite3.Error, OSError) as error:
            if self.usable:
                log.warning("the outbox cannot store views", folder=str(self._folder), reason=str(error))
            self.usable = False
            for pending in group:
                pending.stored.set_exception(NotAccepted(f"the outbox cannot store it ({error})"))
            return
        if not self.usable:
            log.info("the outbox stores views again")
        self.usable = True
        events = [event for pending in group for event in pending.events]
        metrics.streaming().outbox_stored.inc(len(events))
        self._on_commit()
        for pending in group:
            pending.stored.set_result(None)
        # Logged last, because no request waits for it.
        log.info("stored in the outbox", events=len(events), views=by_trace(events))

    def _create(self) -> OutboxFile:
        # Names sort by time, so that adopted files are emptied oldest first.
        self.path = self._folder / f"{new_event_id().hex}.sqlite"  # set before the file exists: see above
        return OutboxFile.create(self.path, self._room())

    def _room(self) -> int:
        """Return how many bytes our own file may take: the limit less all other files in the folder."""
        self._measure_at = self._clock() + MEASURE_EVERY_S
        own = self.file.path if self.file and not self.file.damaged else None
        # The latest commits may still be in the write-ahead log (`.sqlite-wal`), so all files are counted.
        others = (path for path in self._folder.glob("*.sqlite*") if not own or path.stem != own.stem)
        return max(self._max_bytes - bytes_of(others), 0)


def bytes_of(paths: Iterable[Path]) -> int:
    """Return the size of these files together. A file that is removed meanwhile counts as 0."""
    total = 0
    for path in paths:
        with suppress(FileNotFoundError):  # the file was empty and has just been removed
            total += path.stat().st_size
    return total
