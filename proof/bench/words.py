"""Formats figures for the terminal and the page: values with their spread, targets, costs."""

from __future__ import annotations

from statistics import median

from proof.bench.results import Limit, Ratio, Series, spread

#: Values from here on have no decimals.
LARGE = 100


def number(value: float) -> str:
    """Format with three digits: `0.612`, `14.2`, `41,800`."""
    if value >= LARGE:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def range_of(values: list[float]) -> str:
    """Format as `41,800 (40,100-43,000)`."""
    found = spread(values)
    return f"{number(found.median)} ({number(found.low)}–{number(found.high)})"


def target(one: Ratio | Limit) -> str:
    """Format as `≥ 100`, or an empty string without a target."""
    least = one.at_least if isinstance(one, Ratio) else None
    if least is not None:
        return f"≥ {number(least)}"
    return "" if one.at_most is None else f"≤ {number(one.at_most)}"


def reached(one: Ratio | Limit) -> bool | None:
    """Return whether the median reaches the target. None if there is none."""
    middle = median(one.values)
    if isinstance(one, Ratio) and one.at_least is not None:
        return middle >= one.at_least
    return None if one.at_most is None else middle <= one.at_most


def costs(series: Series) -> str:
    """Format as `web 12, worker 8, ...`: CPU microseconds per event, the median of each group."""
    return ", ".join(f"{group} {number(median(values))}" for group, values in series.cpu_us.items() if any(values))
