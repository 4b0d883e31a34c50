"""Measures the CPU seconds of groups of processes: what an event costs, whichever process does the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psutil

from local.unsupervised_part import Program

Seconds = dict[str, float]


def seconds(groups: Mapping[str, Sequence[Program]]) -> Seconds:
    """Return the CPU seconds that each group has used so far: user and system, including children that have ended."""
    return {name: sum(map(_of_program, programs)) for name, programs in groups.items()}


def used(before: Mapping[str, float], after: Mapping[str, float]) -> Seconds:
    """Return the difference between two readings."""
    return {name: max(0.0, after[name] - before.get(name, 0.0)) for name in after}


def per_event_us(used_s: Mapping[str, float], events: int) -> Seconds:
    """Return the CPU microseconds per event."""
    return {name: value / events * 1_000_000 for name, value in used_s.items()}


def _of_program(program: Program) -> float:
    return sum(map(_of_process, program.processes()))


def _of_process(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
