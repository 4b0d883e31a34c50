"""Makes a backlog: tasks that wait in a queue, published by a producer that does nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from local.environment import inherited_environment
from local.unsupervised_part import ROOT
from proof.bench import traffic
from proof.bench.errors import BenchError, Lost
from proof.bench.systems import System, Systems
from service.waiting import wait_until
from view_events import event, topology

#: Seconds until published messages show in the queue's count.
COUNT_TIMEOUT_S = 30


def of_events(systems: Systems, system: System, events: int) -> list[str]:
    """Publish a task for each event. Returns their ids when all of them wait. No worker may run."""
    playbacks = traffic.bodies(events, traffic.EVENTS_OF_A_PLAYBACK)
    views = [view for playback in playbacks for view in playback]
    broker = systems.nodes.broker
    if not broker.exists(system.queue):
        system.start_worker()  # the worker declares its queue
        system.stop_worker()
    broker.purge(system.queue)
    if system.queue == topology.HISTORY.name:
        publish(systems, [[view] for view in views])
    else:
        lines = [f"[{traffic.as_received(view)}]" for view in views]
        _produce(systems, lines, "", system.queue, f"{system.queue}.record")
    if not wait_until(lambda: broker.ready(system.queue) >= len(views), COUNT_TIMEOUT_S, poll_interval_s=0.05):
        raise Lost(f"Of {len(views):,} tasks for {system.name}, {broker.ready(system.queue):,} are in the queue.")
    return [view.event_id for view in views]


def publish(systems: Systems, batches: Sequence[Sequence[traffic.Event]]) -> None:
    """Publish a task of ours for each batch."""
    lines = [f"[[{','.join(map(traffic.as_received, batch))}]]" for batch in batches]
    _produce(systems, lines, topology.VIEWS.name, topology.routing_key(["progress"]), event.TASK)


def _produce(systems: Systems, lines: Sequence[str], exchange: str, routing_key: str, task: str) -> None:
    argv = (sys.executable, "-m", "proof.bench.peers.producer", exchange, routing_key, task)
    run_peer(systems, argv, "The producer of a backlog", stdin="\n".join([*lines, ""]))


def run_peer(systems: Systems, argv: Sequence[str], name: str, stdin: str = "") -> str:
    """Run a program of proof/bench/peers with the broker's address, and return its output. Raises BenchError."""
    done = subprocess.run(
        argv,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        start_new_session=True,
        env=inherited_environment(AMQP_URL=systems.nodes.broker_url),
    )
    if done.returncode:
        raise BenchError(f"{name} failed:\n{done.stderr[-2000:]}")
    return done.stdout
