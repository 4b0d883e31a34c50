"""The folder through which the web processes' metrics come together: prometheus-client's multi-process mode."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

#: Read by prometheus-client once, when it is imported.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


#: A file system in memory, on Linux everywhere. prometheus-client writes through a memory map: on a disk that is full,
#: the first touch of a new file ends the process (SIGBUS), and no process could start any more.
IN_MEMORY = Path("/dev/shm")  # noqa: S108 (the folder's name is ours, and only we may enter it)


def start_empty(cache: Path) -> None:
    """An empty folder, and the variable that names it. Counters begin anew, as they do with every start."""
    folder = folder_for(cache)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    os.environ[VARIABLE] = str(folder)


def remove() -> None:
    """Leave nothing in memory."""
    shutil.rmtree(os.environ.get(VARIABLE, ""), ignore_errors=True)


def folder_for(cache: Path) -> Path:
    """One a cache folder, and so one a running app."""
    if os.access(IN_MEMORY, os.W_OK | os.X_OK):
        return IN_MEMORY / f"flixtrail-metrics-{hashlib.sha256(str(cache.resolve()).encode()).hexdigest()[:16]}"
    return cache.resolve() / "metrics"


def forget_dead_processes() -> None:
    """Drop the gauges of processes that are gone: what they said about themselves holds no longer. Counters stay."""
    from prometheus_client.multiprocess import mark_process_dead

    folder = os.environ.get(VARIABLE)
    for path in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = int(path.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid)  # type: ignore[no-untyped-call]
