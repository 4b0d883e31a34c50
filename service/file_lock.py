"""Locks a file or a folder against other processes (flock). Closing the descriptor releases the lock.

The kernel releases it when the last process with the descriptor ends, even after kill -9. So no lock is ever left over.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def try_lock(path: Path) -> int | None:
    """Lock a file or a folder exclusively, without waiting, and return its descriptor. Makes a missing file.

    None: another process has the lock, or has removed or replaced the file meanwhile. Raises OSError.
    """
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last owner may have removed the file between the two lines above. Then this is a lock on a deleted file.
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def lock(path: Path, *, shared: bool = False) -> int:
    """Wait for the lock on a file or a folder, and return its descriptor. Makes a missing file. Raises OSError.

    Any number of processes may have a shared lock at the same time.
    """
    descriptor = _open(path)
    fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    return descriptor


def _open(path: Path) -> int:
    if path.is_dir():
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
