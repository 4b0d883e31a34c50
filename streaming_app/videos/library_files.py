"""Opens files of the library and nothing else. At every open, a link that leads out of the folder is refused."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

#: Linux only: /proc/self/fd names the file of each descriptor. A path below it opens exactly that file again.
DESCRIPTORS = Path("/proc/self/fd")
#: Seconds for which a requested file stays open. The web server opens it again by its descriptor a moment later.
KEEP_S = 60.0
#: Maximum number of open files. A library has more files, but viewers do not start that many within a minute.
KEEP_FILES = 1_024


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A regular file of the library. `real_path` contains no link. `path` opens this very file, even if another file
    has its name now.
    """

    descriptor: int
    real_path: Path
    size_bytes: int
    mtime_ns: int
    inode: tuple[int, int]

    @property
    def path(self) -> str:
        """A path that opens the file in this process while `descriptor` is open."""
        return f"{DESCRIPTORS}/{self.descriptor}" if DESCRIPTORS.is_dir() else str(self.real_path)

    @property
    def state(self) -> tuple[tuple[int, int], int, int]:
        """A value that is equal for two opens of the same unchanged file."""
        return self.inode, self.size_bytes, self.mtime_ns


def open_inside(folder: Path, name: str) -> OpenFile:
    """Open the file `name` of the resolved `folder`. The caller must close `descriptor`.

    Links may lead to another file of the folder. Raises OSError for everything else: a missing file, something that is
    not a regular file, or a link that leaves the folder (also if a folder of the path has become a link).
    """
    # O_NONBLOCK: opening a pipe must not wait until another process writes to it.
    descriptor = os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _checked(folder, name, descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _checked(folder: Path, name: str, descriptor: int) -> OpenFile:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", name)
    # Checked after the open, on the open file, because the target of a path may change at any moment.
    real_path = _real_path(descriptor, folder / name)
    if not real_path.is_relative_to(folder):
        raise OSError(errno.EXDEV, "a link that leaves the library", name)
    return OpenFile(descriptor, real_path, status.st_size, status.st_mtime_ns, (status.st_dev, status.st_ino))


def _real_path(descriptor: int, path: Path) -> Path:
    if DESCRIPTORS.is_dir():
        return (DESCRIPTORS / str(descriptor)).readlink()
    real_path = path.resolve(strict=True)
    if not os.path.samestat(real_path.lstat(), os.fstat(descriptor)):
        raise OSError(errno.ESTALE, "changed while it was opened", path.name)
    return real_path


class OpenFiles:
    """Keeps files of one folder open while they are sent, so that they can be opened again by their descriptor.

    The name is checked at every request, because it may have become a link. A file has one descriptor, even if many
    viewers watch it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._lock = threading.Lock()
        self._files: OrderedDict[str, tuple[OpenFile, float]] = OrderedDict()
        self._next_number = 0

    def get(self, name: str) -> OpenFile | None:
        """Return the file as it is now, open for at least KEEP_S. None if there is no file that may be sent."""
        try:
            file = open_inside(self._folder, name)
        except (OSError, ValueError):
            return None
        with self._lock:
            kept, _ = self._files.pop(name, (None, 0.0))
            if kept is not None and kept.state == file.state:
                os.close(file.descriptor)
                file = kept
            else:
                file = self._with_number_of_its_own(file)
                if kept is not None:
                    # Another thread may be about to open the old file. So it stays until `close_unused` closes it.
                    self._files[f"{name}\0{kept.descriptor}"] = kept, monotonic()
            self._files[name] = file, monotonic()
            self._close_unused()
        return file

    def close_unused(self) -> None:
        """Close files that nobody has requested for KEEP_S. The disk space of a deleted file becomes free only then."""
        with self._lock:
            self._close_unused()

    def _with_number_of_its_own(self, file: OpenFile) -> OpenFile:
        """Move the descriptor to a high number that only these files use, and use each number in turn.

        If the web server opens a descriptor too late, after it was closed, the number is then no file at all, and never
        a socket of another viewer.
        """
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        first = limit // 2
        number = first + self._next_number % max(limit // 4, 1)
        try:
            moved = fcntl.fcntl(file.descriptor, fcntl.F_DUPFD_CLOEXEC, number)
        except OSError:
            return file
        self._next_number = moved + 1 - first
        os.close(file.descriptor)
        return OpenFile(moved, file.real_path, file.size_bytes, file.mtime_ns, file.inode)

    def _close_unused(self) -> None:
        before = monotonic() - KEEP_S
        while self._files:
            name, (file, used) = next(iter(self._files.items()))
            if used > before and len(self._files) <= KEEP_FILES:
                break
            del self._files[name]
            os.close(file.descriptor)
