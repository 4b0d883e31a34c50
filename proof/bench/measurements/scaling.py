"""P6: how much more workers bring, if each waits for a distant database."""

from __future__ import annotations

from time import sleep

from local import ports
from local.postgres import ADMINISTRATOR, HISTORY, PORT
from local.unsupervised_part import POLL_INTERVAL_S, Program
from proof.bench import backlog, cpu, traffic, trial
from proof.bench.measurements import Plan
from proof.bench.results import Figure, Series, divided
from proof.bench.systems import OURS, Systems
from proof.bench.trial import Trial
from proof.chaos.proxy import BACK, ProxyProcess

WORKERS = (1, 2, 4, 8)
BATCH_EVENTS, DELAY_S = 50, 0.02
#: Batches per worker: about four seconds of waiting.
BATCHES = 48


def measure(systems: Systems, plan: Plan) -> list[Figure]:
    series = {count: Series(name=f"{count} worker{'s' if count > 1 else ''}", unit="events/s") for count in WORKERS}
    port = ports.allocate(systems.nodes.state, ("far database",))["far database"]
    with ProxyProcess() as proxy:
        proxy.serve("database", port, str(systems.nodes.postgres.sockets / f".s.PGSQL.{PORT}"))
        proxy.delay("database", BACK, DELAY_S)
        url = f"postgresql://{ADMINISTRATOR}@127.0.0.1:{port}/{HISTORY}"
        for _ in range(plan.rounds):
            for count in WORKERS:
                plan.step(series[count].name)
                _drain(systems, url, count, plan.size(BATCHES, 12)).note(series[count])
    figure = Figure(
        name="P6",
        title=f"Workers side by side, {DELAY_S * 1000:.0f} ms from the database",
        how=f"A proxy adds {DELAY_S * 1000:.0f} ms to every round trip to the database. When all workers "
        f"wait for work, {BATCHES} tasks of {BATCH_EVENTS} events for each worker (`-c 1`) are published. Each task is "
        "written by itself (TOGETHER_BYTES=1). The rate is events / seconds, from the first commit to the last.",
        series=[*series.values()],
        ratios=[divided(series[count], series[1], at_least=7 if count == WORKERS[-1] else None) for count in (8, 2, 4)],
    )
    return [figure]


def _drain(systems: Systems, url: str, count: int, batches: int) -> Trial:
    ours, broker = systems[OURS], systems.nodes.broker
    ours.rows.clear()
    bodies = traffic.bodies(count * batches * BATCH_EVENTS, BATCH_EVENTS)
    workers = [
        # One batch at a time. Otherwise one worker gathers the whole backlog and writes it in a few round trips.
        systems.worker(f"history-worker-{number}", url, processes=1, TOGETHER_BYTES="1")
        for number in range(1, count + 1)
    ]
    try:
        for worker in workers:
            worker.start()
        workers[-1].wait(lambda: broker.consumers(ours.queue) == count, "all of them consumed")
        groups: dict[str, list[Program]] = {"worker": workers, "postgres": [systems.nodes.postgres_program]}
        before = cpu.seconds(groups)
        backlog.publish(systems, bodies)
        ids = [event.event_id for body in bodies for event in body]
        ours.rows.wait(ids)
        used = cpu.used(before, cpu.seconds(groups))
        arrived = ours.rows.arrived(ids)
        trial.verify(ours, len(bodies) * BATCH_EVENTS)
    finally:
        for worker in workers:
            worker.stop()
    while broker.consumers(ours.queue):
        sleep(POLL_INTERVAL_S)
    return Trial(len(bodies) * BATCH_EVENTS, arrived.last - arrived.first, used)
