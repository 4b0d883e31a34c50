"""The results of a run, as stored in `results.json`."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from statistics import median

import msgspec


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several values, and their range."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread:
    """Make a Spread. Raises ValueError if there are no values."""
    if not values:
        raise ValueError("no values")
    return Spread(median(values), min(values), max(values))


def percentile(values: list[float], percent: float) -> float:
    """Return the value that so many percent of the values do not exceed. Raises IndexError if there are no values."""
    ordered = sorted(values)
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


class Series(msgspec.Struct, kw_only=True):
    """One series of a figure: one value per round, and the CPU microseconds per event of each group of processes."""

    name: str
    unit: str
    values: list[float] = msgspec.field(default_factory=list)
    events: int = 0  #: of one round
    cpu_us: dict[str, list[float]] = msgspec.field(default_factory=dict)

    def add(self, value: float, cpu_us: dict[str, float] | None = None) -> None:
        self.values.append(value)
        self.add_cost(cpu_us or {})

    def add_cost(self, cpu_us: dict[str, float]) -> None:
        for group, cost in cpu_us.items():
            self.cpu_us.setdefault(group, []).append(cost)


class Ratio(msgspec.Struct, kw_only=True):
    """One series divided by another, round by round, and its target."""

    of: str
    to: str
    values: list[float]
    at_least: float | None = None
    at_most: float | None = None


class Limit(msgspec.Struct, kw_only=True):
    """A value that is compared with a limit, not with another series."""

    what: str
    unit: str
    values: list[float]
    at_most: float


class Figure(msgspec.Struct, kw_only=True):
    """One measurement of the table: P1, P1b, ..."""

    name: str
    title: str
    how: str  #: what exactly was measured, in sentences
    series: list[Series] = msgspec.field(default_factory=list)
    ratios: list[Ratio] = msgspec.field(default_factory=list)
    limits: list[Limit] = msgspec.field(default_factory=list)
    skipped: str | None = None  #: the reason, if it was skipped

    @property
    def ratio(self) -> float | None:
        """Return the median of the first ratio, for the last line."""
        return median(self.ratios[0].values) if self.ratios else None


class Results(msgspec.Struct, kw_only=True):
    """All results of one run."""

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
    """Return `of` / `to`, round by round, because both were measured in the same minute."""
    values = [one / other for one, other in zip(of.values, to.values, strict=True)]
    return Ratio(of=of.name, to=to.name, values=values, at_least=at_least, at_most=at_most)
