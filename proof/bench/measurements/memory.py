"""P8: whether the memory use stays constant."""

from __future__ import annotations

from contextlib import suppress

import psutil

from local.unsupervised_part import Program
from proof.bench import trial
from proof.bench.measurements import Plan
from proof.bench.results import Figure, Limit, Series, divided
from proof.bench.systems import OURS, System, Systems

EVENTS, FIRST_EVENTS = 2_000_000, 100_000
MEGA = 1_000_000
MOST_MB, MOST_GROWTH = 150.0, 1.05


def measure(systems: Systems, plan: Plan) -> list[Figure]:
    events = plan.size(EVENTS, 3 * FIRST_EVENTS)
    kinds = ("web", "worker")
    early = {kind: Series(name=f"{kind} process, after {FIRST_EVENTS:,}", unit="MB") for kind in kinds}
    late = {kind: Series(name=f"{kind} process, after {events:,}", unit="MB") for kind in kinds}
    with systems.running(OURS) as (ours,):
        before = _send(ours, FIRST_EVENTS)
        for sent in range(FIRST_EVENTS, events, FIRST_EVENTS):
            plan.step(f"{sent:,} of {events:,} events")
            after = _send(ours, FIRST_EVENTS)
    for kind in kinds:
        for process, megabytes in before[kind].items():
            if process not in after[kind]:
                early[kind].name += " (one of them ended)"
                continue
            early[kind].add(megabytes)
            late[kind].add(after[kind][process])
    figure = Figure(
        name="P8",
        title=f"Memory over {events:,} events",
        how="This is the resident memory of each web process and of each worker process while P1 goes on. The range is "
        "over the processes.",
        series=[series for kind in kinds for series in (early[kind], late[kind])],
        ratios=[divided(late[kind], early[kind], at_most=MOST_GROWTH) for kind in kinds],
        limits=[
            Limit(what=f"largest {kind} process", unit="MB", values=[max(late[kind].values)], at_most=MOST_MB)
            for kind in kinds
        ],
    )
    return [figure]


def _send(ours: System, events: int) -> dict[str, dict[int, float]]:
    """Send so many more events. Then return the megabytes of each process, by process number."""
    assert ours.worker, "ours has one"
    trial.batches(ours, events)
    return {"web": _resident(ours.web), "worker": _resident(ours.worker)}


def _resident(program: Program) -> dict[int, float]:
    found: dict[int, float] = {}
    parent, *children = program.processes()
    for process in children or [parent]:
        with suppress(psutil.NoSuchProcess):
            found[process.pid] = process.memory_info().rss / MEGA
    return found
