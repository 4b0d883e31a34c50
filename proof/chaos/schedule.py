"""Decides which fault begins when, and for how long. It depends only on the seed and the length of the run."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from proof.chaos.proxy import BACK, BOTH, THERE

#: The links of `stack.ChaosStack`.
LINKS = ("web-broker", "worker-broker", "worker-database", "web-history")
#: The parts that can be killed and frozen, and what each disturbs.
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

#: Faults that learner mode cannot have: it has no broker, and nothing counts the deliveries of a killer.
ONLY_WITH_A_BROKER = frozenset({"broker", "memory-alarm", "poison", "killers"})
#: Faults of a page in a browser.
TO_A_PAGE = ("page-link", "page-clock", "file-away")

#: Seconds of normal flow before the first fault, and after the last one is healed. So retries are part of the run, not
#: of the wait after it.
FIRST_S = 4.0
MARGIN_S = 8.0
#: Seconds between the beginnings of two faults. Shorter than most faults, so that they overlap.
GAP_S = (4.0, 9.0)
#: With more faults at a time, hardly anything runs.
AT_A_TIME = 2
#: Seconds that a fault lasts if it stops a part or a link.
FREEZE_S = (5.0, 30.0)
OUTAGE_S = (5.0, 15.0)
#: A kill is over at once. For this many seconds no other fault hits that part, so that it can restart.
KILL_S = 3.0
#: RabbitMQ and everything need longer to restart.
SLOW_KILL_S = 8.0
#: Each stretch of this many seconds has all faults of the client (wrong clocks, duplicates) and all additions (poison,
#: killers, an erased viewer) again.
STRETCH_S = 120.0
SKEW_S = 3600.0
#: Seconds between two faults of the page. It needs a while to recover, and the run must see that.
PAGE_GAP_S = (8.0, 14.0)


#: A fault's name and its parameters.
Card = tuple[str, dict[str, object]]


@dataclass(frozen=True)
class Planned:
    """One fault: begins `start_s` after the load began, and is healed `duration_s` later. `name` is one of
    `faults.FAULTS`.
    """

    start_s: float
    duration_s: float
    name: str
    parameters: Mapping[str, object] = field(default_factory=dict)

    @property
    def end_s(self) -> float:
        return self.start_s + self.duration_s

    @property
    def disturbs(self) -> str:
        """What the fault disturbs. Two faults at a time must disturb different things, because one heals the
        other.
        """
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

    @property
    def needs_a_broker(self) -> bool:
        """Whether it cannot happen in learner mode."""
        return bool({self.name, self.parameters.get("part")} & ONLY_WITH_A_BROKER)


def schedule(seed: int, seconds: float, *, learner_mode: bool = False, browser: bool = False) -> list[Planned]:
    """Return all faults of a run, ordered by their beginning. Each is healed MARGIN_S before the end.

    `learner_mode` leaves out faults that need a broker. `browser` adds faults of the page in a browser.
    """
    rng = random.Random(f"{seed}")
    planned = [*_disturbances(rng, seconds, learner_mode=learner_mode), *_view_faults(rng, seconds)]
    if browser:
        planned += _page_faults(random.Random(f"page {seed}"), seconds)
    return sorted((one for one in planned if not (learner_mode and one.needs_a_broker)), key=lambda one: one.start_s)


def one_outage(part: str, seconds: float) -> list[Planned]:
    """Return one fault: the broker or the database is down for nearly all of a run."""
    return [Planned(FIRST_S, seconds - FIRST_S - MARGIN_S, "down", {"part": part})]


def _page_faults(rng: random.Random, seconds: float) -> Iterator[Planned]:
    """Yield the faults of the page, one after another. Each round has every kind once, in random order."""
    start_s = 2 * FIRST_S
    while True:
        for name in rng.sample(TO_A_PAGE, len(TO_A_PAGE)):
            end_s = start_s + rng.uniform(*OUTAGE_S)
            if end_s > seconds - MARGIN_S:
                return
            parameters: dict[str, object] = {}
            if name == "page-clock":
                parameters["seconds"] = rng.choice([-SKEW_S, SKEW_S, -7 * 24 * SKEW_S, 30 * 24 * SKEW_S])
            elif name == "page-link":
                parameters["how"] = rng.choice(["cut", "swallow"])
            yield Planned(round(start_s, 1), round(end_s - start_s, 1), name, parameters)
            start_s = end_s + rng.uniform(*PAGE_GAP_S)


def _disturbances(rng: random.Random, seconds: float, *, learner_mode: bool) -> Iterator[Planned]:
    """Yield the faults of parts and links, one after another and sometimes two at a time."""
    running: list[Planned] = []
    # In every run, even a short one, a worker must die with unacknowledged messages. Otherwise nothing is
    # redelivered.
    first: Card = ("kill", {"part": "worker-parent", "which": rng.randrange(3), "with_unacked": True})
    deck: Iterator[Card] = chain([first], _deck(rng))
    if learner_mode:
        deck = (card for card in deck if not Planned(0, 0, *card).needs_a_broker)
    put_off: list[Card] = []
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
    """Return whether a fault may begin while these go on."""
    disturbs = [one.disturbs for one in running]
    if "everything" in (planned.disturbs, *disturbs):
        return not running
    return planned.disturbs not in disturbs


def _deck(rng: random.Random) -> Iterator[Card]:
    """Yield every fault of parts and links once, in random order; then all of them again."""
    while True:
        cards: list[Card] = []
        for part in PARTS:
            cards.append(("kill", {"part": part, "which": rng.randrange(12), "with_unacked": rng.random() < 0.5}))  # noqa: PLR2004
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
    # If everything is frozen for longer, the run only pauses, which proves nothing.
    longest = FREEZE_S if name == "freeze" and parameters["part"] != "everything" else OUTAGE_S
    return round(rng.uniform(*longest), 1)


def _view_faults(rng: random.Random, seconds: float) -> Iterator[Planned]:
    """Yield the faults of the views themselves. Each stretch has all of them."""
    begin_s = 0.0
    while begin_s < seconds:
        last_s = min(begin_s + STRETCH_S, seconds - MARGIN_S)
        if last_s - begin_s > 2 * FIRST_S:
            yield from _view_faults_between(rng, begin_s + FIRST_S, last_s)
        begin_s += STRETCH_S


def _view_faults_between(rng: random.Random, first_s: float, last_s: float) -> Iterator[Planned]:
    def planned(name: str, share: float, **parameters: object) -> Planned:
        """Plan a fault for a share of the stretch, at a random time in it."""
        duration_s = round((last_s - first_s) * share, 1)
        return Planned(round(rng.uniform(first_s, last_s - duration_s), 1), duration_s, name, parameters)

    yield planned("clock", 0.2, seconds=rng.choice([-SKEW_S, SKEW_S]))
    yield planned("duplicates", 0.2)
    yield planned("poison", 0, count=rng.randrange(2, 6))
    # Early in the stretch, because a killer becomes a dead letter after about twenty kills, and a worker must restart
    # each time.
    early_s = first_s + (last_s - first_s) / 4
    kind = rng.choice(["child", "parent"])
    yield Planned(round(rng.uniform(first_s, early_s), 1), 0, "killers", {"count": 1, "kind": kind})
    yield planned("erase", 0)
