"""One trial: sends events through one system, and measures from the first request to the last committed row."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from proof.bench import cpu, traffic
from proof.bench.errors import Lost
from proof.bench.load import Generator, Outcome, Plan
from proof.bench.results import Series
from proof.bench.systems import NOOP, OURS, System

#: Connections that send bodies of many events, and clients that each send one event at a time.
UPLOADERS, CLIENTS = 8, 64
#: Events in a body of many events.
BODY_EVENTS = 500


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of a trial."""

    events: int
    seconds: float
    cpu_s: cpu.Seconds

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    def note(self, series: Series) -> None:
        series.events = self.events
        series.add(self.rate, cpu.per_event_us(self.cpu_s, self.events))


def batches(system: System, events: int, *, into_empty: bool = True) -> Trial:
    """Send bodies of BODY_EVENTS over UPLOADERS connections. `into_empty`: empty the tables first."""
    return _through(system, traffic.distribute(traffic.bodies(events, BODY_EVENTS), UPLOADERS), into_empty=into_empty)


def singles(system: System, events: int) -> Trial:
    """Send one event per request from CLIENTS clients."""
    return _through(system, traffic.singles(events, CLIENTS))


def post(system: System, clients: list[list[list[traffic.Event]]], rate: float | None = None) -> Outcome:
    """Send the events without waiting for rows."""
    requests = [[traffic.request(system.path, system.token, body) for body in bodies] for bodies in clients]
    return Generator(Plan(port=system.port, clients=requests, rate=rate)).wait()


def ids_of(clients: list[list[list[traffic.Event]]]) -> list[str]:
    """Return the ids of all events, in about the order in which they are sent."""
    turns = zip(*clients, strict=False)
    ids = [event.event_id for body in chain.from_iterable(turns) for event in body]
    shortest = min(map(len, clients))
    return ids + [event.event_id for bodies in clients for body in bodies[shortest:] for event in body]


def verify(system: System, events: int) -> None:
    """Check that the table has nothing that was not sent, and that ours counted each event once. Raises Lost."""
    if (stored := system.rows.count()) != events:
        raise Lost(f"{system.name}: {events:,} events were sent to an empty table, and it has {stored:,}.")
    if system.name == OURS:
        system.rows.counted_once()


def _through(system: System, clients: list[list[list[traffic.Event]]], *, into_empty: bool = True) -> Trial:
    ids = ids_of(clients)
    if into_empty:
        system.rows.clear()
    groups = system.groups()
    before = cpu.seconds(groups)
    outcome = post(system, clients)
    ended = outcome.ended
    if system.name == NOOP:
        used = cpu.used(before, cpu.seconds(groups))
    else:
        system.rows.wait(ids)
        used = cpu.used(before, cpu.seconds(groups))
        ended = system.rows.arrived(ids).last
        if into_empty:
            verify(system, len(ids))
    return Trial(len(ids), ended - outcome.began, {**used, "load": outcome.cpu_s})
