"""Which fault begins when, and for how long: the same for the same seed and length, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from proof.chaos.proxy import BACK, BOTH, THERE

#: The links of `stack.ChaosStack`.
LINKS = ("web-broker", "worker-broker", "worker-database", "web-history")
#: The parts of it that can be killed and frozen, and on what their trouble bears.
PARTS = {
    "web-child": "web",
    "web-main": "web",
    "worker-child": "worker",
    "worker-parent": "worker",
    "broker": "broker",
    "database-backend": "database",
    "database": "database",
    "everything": "everything",
}

#: Views flow before the first fault, and the last one is healed this long before the end: then its retries are part of
#: the run, not of the wait after it.
FIRST_S = 4.0
MARGIN_S = 8.0
#: Between two beginnings. Shorter than most faults last, so that they overlap.
GAP_S = (4.0, 9.0)
#: More at a time, and nothing would run for most of the time.
AT_A_TIME = 2
#: How long a fault lasts that stops a part, or a link.
FREEZE_S = (5.0, 30.0)
OUTAGE_S = (5.0, 15.0)
#: A kill is over at once; this long nothing else happens to that part, so that it has a chance to come back.
KILL_S = 3.0
#: RabbitMQ and everything need longer to come back.
SLOW_KILL_S = 8.0
#: What the client does to itself (wrong clocks, duplicates) and what is mixed in (poison, killers, an erased viewer) is
#: dealt anew for every stretch of this length.
STRETCH_S = 120.0
SKEW_S = 3600.0


@dataclass(frozen=True)
class Planned:
    """One fault: begins `start_s` after the load, is healed `duration_s` later. `name` is one of `faults.FAULTS`."""

    start_s: float
    duration_s: float
    name: str
    parameters: Mapping[str, object] = field(default_factory=dict)

    @property
    def end_s(self) -> float:
        return self.start_s + self.duration_s

    @property
    def bears_on(self) -> str:
        """What it disturbs. Two faults at a time disturb two different things, else one would heal the other's."""
        match self.name:
            case "kill" | "freeze" | "down":
                return PARTS[str(self.parameters["part"])]
            case "cut" | "delay" | "swallow":
                return str(self.parameters["link"])
            case "memory-alarm":
                return "broker"
            case "outbox-full":
                return "web-broker"
        return self.name


def schedule(seed: int, seconds: float) -> list[Planned]:
    """All faults of a run, by their beginning. Every one is healed MARGIN_S before the end."""
    rng = random.Random(f"{seed}")  # noqa: S311 (a text is hashed the same way everywhere)
    planned = [*_disturbances(rng, seconds), *_guests(rng, seconds)]
    return sorted(planned, key=lambda one: one.start_s)


def one_outage(part: str, seconds: float) -> list[Planned]:
    """The broker or the database down for nearly all of a run."""
    return [Planned(FIRST_S, seconds - FIRST_S - MARGIN_S, "down", {"part": part})]


def _disturbances(rng: random.Random, seconds: float) -> Iterator[Planned]:
    """What happens to parts and links, one after another and sometimes two at a time."""
    running: list[Planned] = []
    # Somebody has to lose what it holds in every run, however short, or nothing would be delivered again.
    deck = chain([("kill", {"part": "worker-parent", "which": rng.randrange(3), "holding": True})], _deck(rng))
    put_off: list[tuple[str, dict[str, object]]] = []
    start_s = FIRST_S
    while start_s < seconds - MARGIN_S - FREEZE_S[0]:
        running = [one for one in running if one.end_s > start_s]
        if len(running) >= AT_A_TIME:
            start_s += 1
            continue
        waiting = next((card for card in put_off if _fits(Planned(start_s, 0, *card), running)), None)
        if waiting:
            put_off.remove(waiting)
        card = waiting or next(deck)
        planned = Planned(start_s, _duration(rng, *card), *card)
        if not _fits(planned, running):
            put_off.append(card)
            start_s += 1
            continue
        if planned.end_s > seconds - MARGIN_S:
            planned = Planned(start_s, seconds - MARGIN_S - start_s, *card)
        yield planned
        running.append(planned)
        start_s = round(start_s + rng.uniform(*GAP_S), 1)


def _fits(planned: Planned, running: list[Planned]) -> bool:
    """Whether it may begin while these go on."""
    bears_on = [one.bears_on for one in running]
    if "everything" in (planned.bears_on, *bears_on):
        return not running
    return planned.bears_on not in bears_on


def _deck(rng: random.Random) -> Iterator[tuple[str, dict[str, object]]]:
    """Every fault of parts and links once, in an order of its own each time; then all of them again."""
    while True:
        cards: list[tuple[str, dict[str, object]]] = []
        for part in PARTS:
            cards.append(("kill", {"part": part, "which": rng.randrange(12), "holding": rng.random() < 0.5}))  # noqa: PLR2004
            cards.append(("freeze", {"part": part, "which": rng.randrange(12)}))
        for link in LINKS:
            cards.append(("cut", {"link": link}))
            for name in ("delay", "swallow"):
                ways = rng.choice([BOTH, (THERE,), (BACK,)])
                cards.append((name, {"link": link, "directions": ways}))
        for name, parameters in cards:
            if name == "delay":
                parameters["delay_s"] = rng.choice([0.05, 0.2, 0.5, 2.0])
        cards += [("memory-alarm", {}), ("outbox-full", {})]
        rng.shuffle(cards)
        yield from cards


def _duration(rng: random.Random, name: str, parameters: Mapping[str, object]) -> float:
    if name == "kill":
        return SLOW_KILL_S if parameters["part"] in {"broker", "everything"} else KILL_S
    # Everything frozen for longer is everything paused: nothing can be learnt from it.
    longest = FREEZE_S if name == "freeze" and parameters["part"] != "everything" else OUTAGE_S
    return round(rng.uniform(*longest), 1)


def _guests(rng: random.Random, seconds: float) -> Iterator[Planned]:
    """What comes with the views themselves. All of it in every stretch."""
    begin_s = 0.0
    while begin_s < seconds:
        last_s = min(begin_s + STRETCH_S, seconds - MARGIN_S)
        if last_s - begin_s > 2 * FIRST_S:
            yield from _guests_between(rng, begin_s + FIRST_S, last_s)
        begin_s += STRETCH_S


def _guests_between(rng: random.Random, first_s: float, last_s: float) -> Iterator[Planned]:
    def planned(name: str, share: float, **parameters: object) -> Planned:
        """For a share of the stretch, somewhere in it."""
        duration_s = round((last_s - first_s) * share, 1)
        return Planned(round(rng.uniform(first_s, last_s - duration_s), 1), duration_s, name, parameters)

    yield planned("clock", 0.2, seconds=rng.choice([-SKEW_S, SKEW_S]))
    yield planned("duplicates", 0.2)
    yield planned("poison", 0, count=rng.randrange(2, 6))
    # Early: it is known for what it is after it has killed twenty times, and each time a worker has to start again.
    early_s = first_s + (last_s - first_s) / 4
    kind = rng.choice(["child", "parent"])
    yield Planned(round(rng.uniform(first_s, early_s), 1), 0, "killers", {"count": 1, "kind": kind})
    yield planned("erase", 0)
