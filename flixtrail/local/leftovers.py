"""Processes that outlived the one that started them: after kill -9 of a parent, or of everything.

Every process of a demo carries FLIXTRAIL_STATE (and its part's FLIXTRAIL_PART) in its environment. Only what carries
the mark is ever ended: a process id by itself may belong to somebody else by now.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import psutil

STATE_MARK = "FLIXTRAIL_STATE"
PART_MARK = "FLIXTRAIL_PART"

#: A process that got SIGKILL is gone within milliseconds, unless its disk hangs.
KILL_WAIT_S = 5


def processes(state: Path, part: str | None = None, *, works_in: Path | None = None) -> list[psutil.Process]:
    """This demo's processes (of one part, or of all), without the caller and those above it.

    `works_in` finds more: PostgreSQL's processes write their titles over their environment, but stay in its folder.
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
        # Gone meanwhile, a zombie, or somebody else's.
        return False


def end(found: Iterable[psutil.Process]) -> int:
    """Kill them and wait until they are gone; their number. A stopped (SIGSTOP) process dies of SIGKILL as well."""
    found = list(found)
    for process in found:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(found, timeout=KILL_WAIT_S)
    return len(found)
