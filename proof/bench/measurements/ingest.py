"""P1: bodies of 500 events, until the rows are committed. P1b: the same compared with the database alone."""

from __future__ import annotations

import json
import subprocess
import sys

from local.environment import inherited_environment
from local.postgres import HISTORY
from local.unsupervised_part import ROOT
from proof.bench import cpu, traffic, trial
from proof.bench.errors import BenchError
from proof.bench.measurements import Plan
from proof.bench.results import Figure, Series, divided
from proof.bench.systems import ACTORS, BATCHES, OURS, USUAL, Systems
from proof.bench.trial import BODY_EVENTS, Trial
from streaming_app.recording.publisher import BATCH_EVENTS

#: Enough for about four seconds each.
EVENTS = 200_000
#: One body for each connection.
PEER_EVENTS = 4_000
CONNECTIONS = 2
HOW = (
    f"Eight connections post bodies of {BODY_EVENTS} events (fifty playbacks of ten) with an ingest token. The "
    "rate is events / seconds, from the first request to the commit of the last row."
)


def measure(systems: Systems, plan: Plan) -> list[Figure]:
    sizes = {OURS: plan.size(EVENTS, 100_000), USUAL: PEER_EVENTS}
    if plan.peers:
        sizes |= {BATCHES: 2 * PEER_EVENTS, ACTORS: PEER_EVENTS}
    series = {name: Series(name=name, unit="events/s") for name in sizes}
    alone = Series(name="PostgreSQL alone", unit="events/s")
    with systems.running(*sizes) as running:
        for system in running:
            plan.step(f"{system.name}: warming up")
            trial.batches(system, BODY_EVENTS * 4)
        for _ in range(plan.rounds):
            for system in running:
                plan.step(system.name)
                trial.batches(system, sizes[system.name]).note(series[system.name])
            if "P1b" in plan.wanted:
                plan.step(alone.name)
                _postgres_alone(systems, sizes[OURS]).note(alone)
    first = Figure(name="P1", title="Batches of 500 events, to committed rows", how=HOW, series=[*series.values()])
    first.ratios = [divided(series[OURS], series[USUAL], at_least=100)]
    first.ratios += [divided(series[OURS], series[name]) for name in sizes if name not in {OURS, USUAL}]
    second = Figure(
        name="P1b",
        title="The same, and the database alone",
        how=f"Only the worker's own statement runs, in batches of {BATCH_EVENTS:,} (as large as a Flixtrail message), "
        f"over {CONNECTIONS} connections from as many processes. There is no HTTP and no broker.",
        series=[series[OURS], alone],
    )
    if alone.values:
        second.ratios = [divided(series[OURS], alone, at_least=0.55)]
    return [first, second] if alone.values else [first]


def _postgres_alone(systems: Systems, events: int) -> Trial:
    """Write the same number of events from separate processes. Each has its batches before the clock starts."""
    ours = systems[OURS]
    ours.rows.clear()
    bodies = traffic.bodies(events, BATCH_EVENTS)
    lines = [f"[{','.join(map(traffic.as_received, body))}]" for body in bodies]
    argv = [sys.executable, "-m", "proof.bench.peers.bare_postgres"]
    environment = inherited_environment(DATABASE_URL=systems.nodes.postgres.url(HISTORY))
    writers = [
        subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
            start_new_session=True,
        )
        for _ in range(CONNECTIONS)
    ]
    groups = {"postgres": [systems.nodes.postgres_program]}
    try:
        for number, writer in enumerate(writers):
            part = lines[number::CONNECTIONS]
            assert writer.stdin, "opened above"
            assert writer.stdout, "opened above"
            writer.stdin.write("\n".join([str(len(part)), *part, ""]))
            writer.stdin.flush()
            if writer.stdout.readline() != "ready\n":
                raise BenchError("The process that writes to PostgreSQL alone did not start.")
        before = cpu.seconds(groups)
        results = [json.loads(answer) for answer in _start_writing(writers)]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    used = cpu.used(before, cpu.seconds(groups))
    ours.rows.arrived([event.event_id for body in bodies for event in body])
    trial.verify(ours, sum(map(len, bodies)))
    seconds = max(ended for _, ended, _ in results) - min(began for began, _, _ in results)
    return Trial(sum(map(len, bodies)), seconds, {**used, "worker": sum(cost for *_, cost in results)})


def _start_writing(writers: list[subprocess.Popen[str]]) -> list[str]:
    for writer in writers:
        assert writer.stdin, "a pipe"
        writer.stdin.write("go\n")
        writer.stdin.flush()
    return [writer.communicate()[0] for writer in writers]
