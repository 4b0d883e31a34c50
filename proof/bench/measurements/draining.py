"""P3: a worker drains a backlog. P3b: the same for a producer that publishes one task per event."""

from __future__ import annotations

import json
from collections.abc import Callable
from time import time

from proof.bench import backlog, cpu, traffic, trial
from proof.bench.measurements import Plan
from proof.bench.results import Figure, Series, divided
from proof.bench.systems import ACTORS, BATCHES, OURS, USUAL, System, Systems, python_of
from proof.bench.trial import CLIENTS, Trial

EVENTS, PEER_EVENTS = 100_000, 10_000
#: Tasks per round: 100,000 in five rounds.
TASKS = 20_000
ACKER = "a consumer that only acks"


def measure(systems: Systems, plan: Plan) -> list[Figure]:
    backlogs: dict[str, Callable[[], Trial]] = {}
    ours, usual = systems[OURS], systems[USUAL]
    sizes = {"P3": plan.size(EVENTS), "P3b": plan.size(TASKS), "peers": plan.size(PEER_EVENTS, 4_000)}
    tasks = f"{OURS}, a task an event"
    if "P3" in plan.wanted:
        backlogs[OURS] = lambda: _of_posts(systems, sizes["P3"])
    backlogs[USUAL] = lambda: _of_tasks(systems, usual, sizes["peers"])
    if "P3" in plan.wanted:
        batches, actors = systems[BATCHES], systems[ACTORS]
        backlogs[BATCHES] = lambda: _of_tasks(systems, batches, sizes["peers"])
        backlogs[ACKER] = lambda: _only_acked(systems, sizes["peers"])
        if plan.peers:
            backlogs[ACTORS] = lambda: _of_views(systems, actors, sizes["peers"] // 2)
    if "P3b" in plan.wanted:
        backlogs[tasks] = lambda: _of_tasks(systems, ours, sizes["P3b"])
    series = {name: Series(name=name, unit="events/s") for name in backlogs}
    try:
        for _ in range(plan.rounds):
            for name, drain in backlogs.items():
                plan.step(name)
                drain().note(series[name])
    finally:
        systems.stop()
    figures = []
    if "P3" in plan.wanted:
        named = [one for name, one in series.items() if name != tasks]
        targets = {USUAL: 10.0, BATCHES: 1.5, ACKER: 1.0}
        figures.append(
            Figure(
                name="P3",
                title="One worker drains a backlog",
                how=f"While no worker runs, {CLIENTS} clients post {sizes['P3']:,} events one by one. Then one "
                f"worker starts. The peers find {sizes['peers']:,} tasks of one event each. The rate is events / "
                "seconds, from the moment at which RabbitMQ has the consumer to the commit of the last row "
                "(to the last ack if nothing is written).",
                series=named,
                ratios=[divided(series[OURS], one, at_least=targets.get(one.name)) for one in named[1:]],
            )
        )
    if "P3b" in plan.wanted:
        figures.append(
            Figure(
                name="P3b",
                title="One worker drains tasks of one event each",
                how=f"Another producer has published {sizes['P3b']:,} tasks of one event each to our queue.",
                series=[series[tasks], series[USUAL]],
                ratios=[divided(series[tasks], series[USUAL], at_least=1.5)],
            )
        )
    return figures


def _of_posts(systems: Systems, events: int) -> Trial:
    """Make our own backlog, as the streaming app publishes single posts."""
    ours = systems[OURS]
    ours.stop_worker()
    ours.start_web()
    ours.rows.clear()
    clients = traffic.singles(events, CLIENTS)
    trial.post(ours, clients)
    return _drained(ours, trial.ids_of(clients), systems)


def _of_views(systems: Systems, peer: System, events: int) -> Trial:
    """Make a peer's backlog, with its own web server."""
    peer.stop_worker()
    peer.start_web()
    peer.rows.clear()
    clients = traffic.distribute(traffic.bodies(events, 100), trial.UPLOADERS)
    trial.post(peer, clients)
    return _drained(peer, trial.ids_of(clients), systems)


def _of_tasks(systems: Systems, system: System, events: int) -> Trial:
    """Make tasks of one event each, with a producer that only fills the queue."""
    system.stop_worker()
    system.rows.clear()
    return _drained(system, backlog.of_events(systems, system, events), systems)


def _drained(system: System, ids: list[str], systems: Systems) -> Trial:
    """Start the worker and wait for the last row. The start itself counts neither as time nor as CPU."""
    assert system.worker, system.name
    system.rows.settle()
    system.worker.start()
    system.worker.wait(lambda: systems.nodes.broker.consumers(system.queue) > 0, "it consumed")
    began, groups = time(), system.groups()
    before = cpu.seconds(groups)
    system.rows.wait(ids)
    used = cpu.used(before, cpu.seconds(groups))
    arrived = system.rows.arrived(ids)
    trial.verify(system, len(ids))
    system.stop_worker()
    return Trial(len(ids), arrived.last - min(began, arrived.first), used)


def _only_acked(systems: Systems, events: int) -> Trial:
    usual = systems[USUAL]
    usual.stop_worker()
    backlog.of_events(systems, usual, events)
    argv = (python_of(USUAL), "-m", "proof.bench.peers.bare_consumer", usual.queue, str(events))
    output = backlog.run_peer(systems, argv, "The consumer that only acks")
    began, ended, used = json.loads(output)
    return Trial(events, ended - began, {"worker": used})
