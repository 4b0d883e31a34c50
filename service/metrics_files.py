"""Manages the folder with the metrics of a service's processes: prometheus-client's multi-process mode."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from service.file_lock import FOLDER, try_lock

#: This variable names the folder, also for processes that start later. prometheus-client reads it once, on import.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "flixtrail-metrics-"

#: A file system in memory; every Linux has it. prometheus-client writes through a memory map. On a full disk, the
#: first write to a new file ends the process (SIGBUS), and no process can start any more.
IN_MEMORY = Path("/dev/shm")  # noqa: S108 (the folder's name is random, and only we may enter it)


def make() -> None:
    """Make a new folder for this process and its children, and set the variable. Counters begin at 0.

    These processes lock the folder itself. The kernel releases the lock when the last of them is gone, even after kill
    -9. `remove_abandoned` removes folders without a lock.
    """
    remove_abandoned()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent_folder()))
        # Another process's `remove_abandoned` may remove the folder between these two lines.
        if _lock(folder) is not None:
            break
    os.environ[VARIABLE] = str(folder)
    from prometheus_client import values

    # prometheus-client may have been imported before: `celery` loads Flower's commands, and Flower's metrics, before
    # our code.
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]


def remove() -> None:
    """Remove the folder, so that nothing stays in memory."""
    shutil.rmtree(os.environ.pop(VARIABLE, ""), ignore_errors=True)


def remove_abandoned() -> None:
    """Remove the folders of services that are gone and could not remove them (kill -9)."""
    for folder in parent_folder().glob(f"{PREFIX}*"):
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def parent_folder() -> Path:
    """Return the parent of these folders."""
    return IN_MEMORY if os.access(IN_MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def forget_dead_processes() -> None:
    """Drop the gauges of processes that are gone: their values are no longer true. Counters stay."""
    from prometheus_client.multiprocess import mark_process_dead

    folder = os.environ.get(VARIABLE)
    for path in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = int(path.stem.rpartition("_")[2])
        if not _is_alive(pid):
            with suppress(FileNotFoundError):  # another process was faster
                mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _lock(folder: Path) -> int | None:
    """Lock a folder. None: another process has the lock, or the folder is gone or another user's."""
    try:
        return try_lock(folder, FOLDER)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
