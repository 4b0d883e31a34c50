"""P4: the time from the first byte of a request until its row can be read, and until its 202."""

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
    rows = {(name, p): Series(name=f"{name}, to the row, p{p}", unit="ms") for name in names for p in PERCENTS}
    answers = {(name, p): Series(name=f"{name}, to the 202, p{p}", unit="ms") for name in names for p in PERCENTS}
    with systems.running(*names) as running:
        for system in running:
            plan.step(f"{system.name}: warming up")
            trial.singles(system, 10 * CLIENTS)
        for _ in range(plan.rounds):
            for system in running:
                plan.step(system.name)
                to_row_ms, to_answer_ms, cost = _times(system, plan.size(RATE * SECONDS))
                for p in PERCENTS:
                    for series, times_ms in ((rows, to_row_ms), (answers, to_answer_ms)):
                        series[system.name, p].events = len(times_ms)
                        series[system.name, p].add(percentile(times_ms, p))
                rows[system.name, PERCENTS[0]].add_cost(cost)
    figure = Figure(
        name="P4",
        title=f"From a request to its row, at {RATE} events/s",
        how=f"The client sends {RATE} single events a second, without waiting for answers (open loop). A second "
        f"connection asks the table every {POLL_INTERVAL_S * 1000:.0f} ms which of them it sees. Both times begin when "
        "the client sends the request: one ends with the answer that has the row, the other with the 202.",
        series=[series[name, p] for series in (rows, answers) for p in PERCENTS for name in names],
        ratios=[divided(rows[USUAL, p], rows[OURS, p], at_least=1) for p in PERCENTS],
        limits=[Limit(what="p99, request to row", unit="ms", values=rows[OURS, 99].values, at_most=P99_MS)],
    )
    return [figure]


def _times(system: System, events: int) -> tuple[list[float], list[float], cpu.Seconds]:
    """Return the milliseconds of each event to its row and to its 202, and the CPU cost of one."""
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
    requests = _requests(outcome, clients)
    to_row_ms = [(seen[event_id] - requests[event_id][0]) * 1000 for event_id in ids]
    to_answer_ms = [(requests[event_id][1] - requests[event_id][0]) * 1000 for event_id in ids]
    return to_row_ms, to_answer_ms, cpu.per_event_us({**used, "load": outcome.cpu_s}, len(ids))


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


def _requests(outcome: Outcome, clients: list[list[list[traffic.Event]]]) -> dict[str, tuple[float, float]]:
    """Return when each event was sent, and when it got its 202. A client's requests are answered in order."""
    count: dict[int, int] = defaultdict(int)
    requests = {}
    for client, sent_at, answered_at in outcome.times:
        requests[clients[client][count[client]][0].event_id] = (sent_at, answered_at)
        count[client] += 1
    return requests
