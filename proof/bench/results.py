"""What a run found out, as it is kept in `results.json`."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from statistics import median

import msgspec


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of several values, and how far they are apart."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    """Raises ValueError when there is none."""
    if not values:
        raise ValueError("no values")
    return Spread(median(values), min(values), max(values))


def percentile(values: list[float], percent: float) -> float:
    """The value that so many percent of them do not exceed. Raises IndexError when there is none."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


class Series(msgspec.Struct, kw_only=True):
    """One side of a figure: a value a round, and the CPU microseconds that an event cost in each group of processes."""

    name: str
    unit: str
    values: list[float] = msgspec.field(default_factory=list)
    events: int = 0  #: of one round
    cpu_us: dict[str, list[float]] = msgspec.field(default_factory=dict)

    def add(self, value: float, cpu_us: dict[str, float] | None = None) -> None:
        self.values.append(value)
        for group, cost in (cpu_us or {}).items():
            self.cpu_us.setdefault(group, []).append(cost)


class Ratio(msgspec.Struct, kw_only=True):
    """Two series of the same rounds, one divided by the other round by round, and what it should be."""

    of: str
    to: str
    values: list[float]
    at_least: float | None = None
    at_most: float | None = None


class Limit(msgspec.Struct, kw_only=True):
    """A value that stands for itself."""

    what: str
    unit: str
    values: list[float]
    at_most: float


class Figure(msgspec.Struct, kw_only=True):
    """One measurement of the table: P1, P1b, ..."""

    name: str
    title: str
    how: str  #: what exactly was done, in sentences
    series: list[Series] = msgspec.field(default_factory=list)
    ratios: list[Ratio] = msgspec.field(default_factory=list)
    limits: list[Limit] = msgspec.field(default_factory=list)
    skipped: str | None = None  #: the reason

    @property
    def ratio(self) -> float | None:
        """The first one's median: what the last line says."""
        return median(self.ratios[0].values) if self.ratios else None


class Results(msgspec.Struct, kw_only=True):
    """Everything of one run."""

    command: str
    quick: bool
    began: str
    seconds: float
    machine: dict[str, str]
    versions: dict[str, str]
    figures: list[Figure]

    def figure(self, name: str) -> Figure | None:
        return next((figure for figure in self.figures if figure.name == name), None)


def divided(of: Series, to: Series, *, at_least: float | None = None, at_most: float | None = None) -> Ratio:
    """`of` / `to`, round by round: both were measured in the same minute."""
    values = [one / other for one, other in zip(of.values, to.values, strict=True)]
    return Ratio(of=of.name, to=to.name, values=values, at_least=at_least, at_most=at_most)
