"""The adoption of outbox files whose process is gone. So stored events do not depend on its restart.

Every ADOPT_EVERY_S, each process tries the lock of every file in the folder. The kernel releases a lock when its
process ends, however it ends. Whoever gets the lock owns the file: it sends the events and removes the file.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import structlog

from streaming_app.recording.errors import OtherOutboxVersion
from streaming_app.recording.outbox_file import OutboxFile
from streaming_app.recording.outbox_writer import OutboxWriter

log = structlog.get_logger(__name__)

#: Seconds between two searches for files whose owner is gone.
ADOPT_EVERY_S = 2


class OutboxAdoption:
    """The adopted files of one process, until they are empty. Only one thread calls the methods."""

    def __init__(self, folder: Path, writer: OutboxWriter) -> None:
        self._folder = folder
        self._writer = writer
        #: Adopted files that still have events, oldest first.
        self.files: list[OutboxFile] = []
        #: Files that this process does not try to adopt again, because they need a person.
        self._skipped: set[Path] = set()
        self._logged: set[Path] = set()

    def adopt(self) -> bool:
        """Adopt all files whose owner is gone. Returns whether there were any."""
        before = len(self.files)
        locks = sorted(self._folder.glob("*.lock"))
        # Only now: if the writer makes its file meanwhile, it sets `path` before its lock can be in the list.
        ours = {file.path for file in self.files} | self._skipped | {self._writer.path}
        for lock in locks:
            path = lock.with_suffix(".sqlite")
            if path not in ours:
                self._try(path)
        return len(self.files) > before

    def _try(self, path: Path) -> None:
        try:
            file = OutboxFile.adopt(path)
            if file is None:
                return  # its owner lives
            if not file.unsent:
                if not file.close():
                    self._skipped.add(path)
                return
        except (OtherOutboxVersion, sqlite3.DatabaseError, OSError) as error:
            # A full disk is a passing problem. A damaged file, a file of another user or a file of another version
            # needs a person. Nothing is deleted.
            if isinstance(error, PermissionError) or not isinstance(error, sqlite3.OperationalError | OSError):
                self._skipped.add(path)
            if path not in self._logged:
                log.warning("an outbox cannot be adopted", file=str(path), reason=str(error))
            self._logged.add(path)
            return
        self.files.append(file)
        log.info("adopted the outbox of a process that is gone", file=path.name, events=file.unsent)

    def close_if_empty(self, file: OutboxFile) -> None:
        """Remove this file, if it was adopted and all its events have been sent."""
        if file in self.files and not file.unsent:
            self.files.remove(file)
            if file.close():
                log.info("adopted outbox is empty", file=file.path.name)
            else:
                self._skipped.add(file.path)  # the rest of the file cannot be read

    def skip(self, file: OutboxFile) -> None:
        """Send nothing more of this file, and do not adopt it again: it is damaged."""
        self._skipped.add(file.path)
        if file in self.files:
            self.files.remove(file)
