"""The folder through which the web processes' metrics come together: prometheus-client's multi-process mode."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

#: Read by prometheus-client once, when it is imported.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def start_empty(cache: Path) -> None:
    """An empty folder, and the variable that names it. Counters begin anew, as they do with every start."""
    folder = cache.resolve() / "metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ[VARIABLE] = str(folder)


def forget_dead_processes() -> None:
    """Drop the gauges of processes that are gone: what they said about themselves holds no longer. Counters stay."""
    from prometheus_client.multiprocess import mark_process_dead

    folder = os.environ.get(VARIABLE)
    for path in Path(folder).glob("gauge_live*_*.db") if folder else ():
        pid = int(path.stem.rpartition("_")[2])
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid)  # type: ignore[no-untyped-call]
