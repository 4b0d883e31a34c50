"""The folder in which the metrics of a service's processes come together: prometheus-client's multi-process mode."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

#: Names the folder, also to processes that are started anew. Read by prometheus-client once, when it is imported.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PREFIX = "flixtrail-metrics-"

#: A file system in memory, on Linux everywhere. prometheus-client writes through a memory map: on a disk that is full,
#: the first touch of a new file ends the process (SIGBUS), and no process could start any more.
IN_MEMORY = Path("/dev/shm")  # noqa: S108 (the folder's name is made up, and only we may enter it)


def make() -> None:
    """A new folder for this process and those that it starts, and the variable that names it. Counters begin at 0.

    It is held by a lock on the folder itself, which the kernel frees when the last of these processes is gone, however
    it went. `sweep` removes what nobody holds.
    """
    sweep()
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place()))
        lock = _take(folder)
        # Somebody's `sweep` may have come between the two lines above.
        if lock is not None and folder.exists():
            break
    os.environ[VARIABLE] = str(folder)
    from prometheus_client import values

    # It may have been imported before: `celery` loads Flower's commands, and Flower has metrics, before our own code.
    values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]


def remove() -> None:
    """Leave nothing in memory."""
    shutil.rmtree(os.environ.pop(VARIABLE, ""), ignore_errors=True)


def sweep() -> None:
    """Remove the folders of services that are gone and could not do it themselves (kill -9)."""
    for folder in place().glob(f"{PREFIX}*"):
        lock = _take(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def place() -> Path:
    """Where such folders lie."""
    return IN_MEMORY if os.access(IN_MEMORY, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def forget_dead_processes() -> None:
    """Drop the gauges of processes that are gone: what they said about themselves holds no longer. Counters stay."""
    from prometheus_client.multiprocess import mark_process_dead

    folder = os.environ.get(VARIABLE)
    for path in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = int(path.stem.rpartition("_")[2])
        if not _lives(pid):
            with suppress(FileNotFoundError):  # another process was faster
                mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _take(folder: Path) -> int | None:
    """The lock on a folder, for as long as it is not closed; None when somebody has it, or it is not ours."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
