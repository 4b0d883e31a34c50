"""Locks a file or a folder against other processes (flock). Closing the descriptor releases the lock.

The kernel releases it when the last process with the descriptor ends, even after kill -9. So no lock is ever left over.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

#: How a lock file is opened: it is made if it is missing. A folder is never made.
FILE = os.O_RDWR | os.O_CREAT
FOLDER = os.O_RDONLY | os.O_DIRECTORY


def try_lock(path: Path, flags: int = FILE) -> int | None:
    """Lock a file (or, with FOLDER, a folder) exclusively, without waiting, and return its descriptor.

    None: another process has the lock, or has removed or replaced the file meanwhile. Raises OSError.
    """
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last owner may have removed the file between the two lines above. Then this is a lock on a deleted file.
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def lock(path: Path, flags: int = FILE, *, shared: bool = False) -> int:
    """Wait for the lock on a file (or, with FOLDER, a folder), and return its descriptor. Raises OSError.

    Any number of processes may have a shared lock at the same time.
    """
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
