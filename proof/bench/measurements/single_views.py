"""P2: one event per request, until the row is committed. P2b: compared with a Flask route that does nothing."""

from __future__ import annotations

from proof.bench import trial
from proof.bench.measurements import Plan
from proof.bench.results import Figure, Series, divided
from proof.bench.systems import ACTORS, BATCHES, NOOP, OURS, USUAL, Systems
from proof.bench.trial import CLIENTS

EVENTS, NOOP_EVENTS, USUAL_EVENTS = 12_800, 25_600, 2_560
HOW = (
    f"{CLIENTS} clients keep their connections open and post one event in each request, one after another. The rate is "
    "events / seconds, from the first request to the commit of the last row."
)


def measure(systems: Systems, plan: Plan) -> list[Figure]:
    sizes = {OURS: EVENTS, USUAL: USUAL_EVENTS, NOOP: NOOP_EVENTS}
    if "P2b" not in plan.wanted:
        del sizes[NOOP]
    if plan.peers:
        sizes |= {BATCHES: USUAL_EVENTS, ACTORS: USUAL_EVENTS}
    series = {name: Series(name=name, unit="events/s") for name in sizes}
    with systems.running(*sizes) as running:
        for system in running:
            plan.step(f"{system.name}: warming up")
            trial.singles(system, 10 * CLIENTS)
        for _ in range(plan.rounds):
            for system in running:
                plan.step(system.name)
                trial.singles(system, sizes[system.name]).note(series[system.name])
    recorded = [one for name, one in series.items() if name != NOOP]
    figure = Figure(name="P2", title="One event a request, to committed rows", how=HOW, series=recorded)
    figure.ratios = [divided(series[OURS], series[USUAL], at_least=8)]
    figure.ratios += [divided(series[OURS], one) for one in recorded if one.name not in {OURS, USUAL}]
    if NOOP not in series:
        return [figure]
    ceiling = Figure(
        name="P2b",
        title="The same, and a route that does nothing",
        how="The same requests go to a Flask route that reads nothing and answers 202, on the streaming app's own "
        "server and threads. Its rate counts answers; Flixtrail's rate counts rows.",
        series=[series[OURS], series[NOOP]],
        ratios=[divided(series[OURS], series[NOOP], at_least=0.5)],
    )
    return [figure, ceiling]
