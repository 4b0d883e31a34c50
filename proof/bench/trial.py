"""One trial: so many events through one system, from the first request to the last row that is committed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from proof.bench import cpu, traffic
from proof.bench.errors import Lost
from proof.bench.load import Generator, Outcome, Plan
from proof.bench.results import Series
from proof.bench.systems import NOOP, OURS, System

#: Connections that carry bodies of many events, and clients that each send one event at a time.
UPLOADERS, CLIENTS = 8, 64
#: Events in a body, where it carries many.
BODY_EVENTS = 500


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it."""

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
    """Bodies of BODY_EVENTS over UPLOADERS connections; into tables that are emptied before, or as they are."""
    return _through(system, traffic.dealt(traffic.bodies(events, BODY_EVENTS), UPLOADERS), into_empty=into_empty)


def singles(system: System, events: int) -> Trial:
    """One event a request, from CLIENTS clients."""
    return _through(system, traffic.singles(events, CLIENTS))


def post(system: System, clients: list[list[list[traffic.Event]]], rate: float | None = None) -> Outcome:
    """Only send it."""
    requests = [[traffic.request(system.path, system.token, body) for body in bodies] for bodies in clients]
    return Generator(Plan(port=system.port, clients=requests, rate=rate)).wait()


def ids_of(clients: list[list[list[traffic.Event]]]) -> list[str]:
    """Of all events, in about the order in which they are sent."""
    turns = zip(*clients, strict=False)
    ids = [event.event_id for body in chain.from_iterable(turns) for event in body]
    shortest = min(map(len, clients))
    return ids + [event.event_id for bodies in clients for body in bodies[shortest:] for event in body]


def verify(system: System, events: int) -> None:
    """Nothing is in the table that was not sent, and ours has counted each once. Raises Lost."""
    if (stored := system.rows.count()) != events:
        raise Lost(f"{system.name}: {events:,} events were sent to an empty table, and it holds {stored:,}.")
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
