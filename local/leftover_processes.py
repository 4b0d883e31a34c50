"""Ends processes that outlived their parent: after kill -9 of the parent, or of everything.

Every process of a demo has FLIXTRAIL_STATE (and its part's FLIXTRAIL_PART) in its environment. Only processes with this
mark are ended, because a process id may belong to another program by now.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import psutil

STATE_MARK = "FLIXTRAIL_STATE"
PART_MARK = "FLIXTRAIL_PART"

#: Seconds to wait for killed processes. They are gone within milliseconds, unless the disk hangs.
KILL_WAIT_S = 5


def processes(state: Path, part: str | None = None, *, works_in: Path | None = None) -> list[psutil.Process]:
    """Return this demo's processes (of one part or of all), without the caller and its ancestors.

    `works_in` finds more: PostgreSQL's processes overwrite their environment with their titles, but stay in its folder.
    """
    mine = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    return [
        process
        for process in psutil.process_iter()
        if process.pid not in mine and _belongs(process, state, part, works_in)
    ]


def _belongs(process: psutil.Process, state: Path, part: str | None, works_in: Path | None) -> bool:
    try:
        environment = process.environ()
        if environment.get(STATE_MARK) == str(state):
            return part is None or environment.get(PART_MARK) == part
        return works_in is not None and process.cwd() == str(works_in)
    except (psutil.Error, OSError):
        # The process is gone, a zombie, or another user's.
        return False


def end_all(state: Path) -> int:
    """Kill every process of the demo on this state folder, and wait until they are gone. Returns their number."""
    return end(processes(state, works_in=state / "postgres"))


def end(found: Iterable[psutil.Process]) -> int:
    """Kill the processes and wait until they are gone. Returns their number. SIGKILL also ends a process that is
    stopped (SIGSTOP).
    """
    found = list(found)
    for process in found:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(found, timeout=KILL_WAIT_S)
    return len(found)
