"""How figures are written: values with their spread, targets, costs. For the terminal and for the page."""

from __future__ import annotations

from statistics import median

from proof.bench.results import Limit, Ratio, Series, spread

#: From here on without decimals.
LARGE = 100


def number(value: float) -> str:
    """Three digits are enough for anybody: `0.612`, `14.2`, `41,800`."""
    if value >= LARGE:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def range_of(values: list[float]) -> str:
    """`41,800 (40,100-43,000)`."""
    found = spread(values)
    return f"{number(found.median)} ({number(found.low)}–{number(found.high)})"  # noqa: RUF001 (a range's dash)


def target(one: Ratio | Limit) -> str:
    """`≥ 100`, or nothing."""
    least = one.at_least if isinstance(one, Ratio) else None
    if least is not None:
        return f"≥ {number(least)}"
    return "" if one.at_most is None else f"≤ {number(one.at_most)}"


def reached(one: Ratio | Limit) -> bool | None:
    """Whether the median is where it should be; None when nothing was promised."""
    middle = median(one.values)
    if isinstance(one, Ratio) and one.at_least is not None:
        return middle >= one.at_least
    return None if one.at_most is None else middle <= one.at_most


def costs(series: Series) -> str:
    """`web 12, worker 8, ...`: CPU microseconds an event, the median of each group."""
    return ", ".join(f"{group} {number(median(values))}" for group, values in series.cpu_us.items() if any(values))
