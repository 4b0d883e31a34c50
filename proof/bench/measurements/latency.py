"""P4: the time from the 202 until a row can be read."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from time import sleep, time

from proof.bench import cpu, traffic, trial
from proof.bench.errors import Lost
from proof.bench.load import Outcome
from proof.bench.measurements import Plan
from proof.bench.results import Figure, Limit, Series, divided, percentile
from proof.bench.systems import OURS, USUAL, System, Systems
from proof.bench.trial import CLIENTS

RATE, SECONDS = 300, 10
#: Seconds between two queries of the table, and the events of each client that a query asks for: those that may be
#: accepted and not stored yet.
POLL_INTERVAL_S, EVENTS_PER_CLIENT = 0.002, 4
STALL_TIMEOUT_S = 30
P99_MS = 100.0
PERCENTS = (50, 99)


def measure(systems: Systems, plan: Plan) -> list[Figure]:
    names = (OURS, USUAL)
    series = {(name, p): Series(name=f"{name}, p{p}", unit="ms") for name in names for p in PERCENTS}
    with systems.running(*names) as running:
        for system in running:
            plan.step(f"{system.name}: warming up")
            trial.singles(system, 10 * CLIENTS)
        for _ in range(plan.rounds):
            for system in running:
                plan.step(system.name)
                waits_ms, cost = _waits(system, plan.size(RATE * SECONDS))
                for p in PERCENTS:
                    one = series[system.name, p]
                    one.events = len(waits_ms)
                    one.add(percentile(waits_ms, p), cost if p == PERCENTS[0] else None)
    ours_p99 = series[OURS, 99]
    figure = Figure(
        name="P4",
        title=f"From accepted to visible, at {RATE} events/s",
        how=f"The client sends {RATE} single events a second, without waiting for answers (open loop). A second "
        f"connection asks the table every {POLL_INTERVAL_S * 1000:.0f} ms which of them it sees. The time is from the "
        "202 at the client to the answer that has the row. If the row is there before the 202, the time is 0.",
        series=[series[name, p] for p in PERCENTS for name in names],
        ratios=[divided(series[USUAL, p], series[OURS, p], at_least=1) for p in PERCENTS],
        limits=[Limit(what="p99, accepted to visible", unit="ms", values=ours_p99.values, at_most=P99_MS)],
    )
    return [figure]


def _waits(system: System, events: int) -> tuple[list[float], cpu.Seconds]:
    """Return the milliseconds of each event, and the CPU cost of one."""
    clients = traffic.singles(events, CLIENTS)
    ids = trial.ids_of(clients)
    system.rows.clear()
    groups = system.groups()
    before = cpu.seconds(groups)
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(trial.post, system, clients, RATE)
        seen = _seen(system, clients)
        outcome = sending.result()
    used = cpu.used(before, cpu.seconds(groups))
    trial.verify(system, len(ids))
    answered = _answered(outcome, clients)
    waits = [max(0.0, seen[event_id] - answered[event_id]) * 1000 for event_id in ids]
    return waits, cpu.per_event_us({**used, "load": outcome.cpu_s}, len(ids))


def _seen(system: System, clients: list[list[list[traffic.Event]]]) -> dict[str, float]:
    """Return when each event was first read. Raises Lost when no more events appear.

    A client sends one event after another, so only its next few can be there.
    """
    unseen = [dict.fromkeys(body[0].event_id for body in bodies) for bodies in clients]
    of_client = {event_id: ids for ids in unseen for event_id in ids}
    seen: dict[str, float] = {}
    quiet_since = time()
    while len(seen) < len(of_client):
        found = system.rows.visible([event_id for ids in unseen for event_id in islice(ids, EVENTS_PER_CLIENT)])
        now = time()
        for event_id in found:
            seen[event_id] = now
            del of_client[event_id][event_id]
        if found:
            quiet_since = now
        if now - quiet_since > STALL_TIMEOUT_S:
            raise Lost(
                f"{system.name}: {len(seen):,} of {len(of_client):,} events are stored. No more came for "
                f"{STALL_TIMEOUT_S} s."
            )
        sleep(POLL_INTERVAL_S)
    return seen


def _answered(outcome: Outcome, clients: list[list[list[traffic.Event]]]) -> dict[str, float]:
    """Return when each event got its 202. A client's requests are answered in order."""
    count: dict[int, int] = defaultdict(int)
    answered = {}
    for client, _, when in outcome.times:
        answered[clients[client][count[client]][0].event_id] = when
        count[client] += 1
    return answered
