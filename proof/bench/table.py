"""Prints the figures on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from proof.bench import words
from proof.bench.results import Figure, Limit, Ratio

MARKS = {True: Text("✓", "green"), False: Text("✗", "red"), None: Text("")}


def print_tables(console: Console, figures: Iterable[Figure]) -> None:
    """Print what was measured, with spread and CPU cost, and compare the ratios with their targets."""
    measured = Table("", "", "median (min–max)", "CPU µs an event", box=None, pad_edge=False)
    judged = Table("", "ratio", "median (min–max)", "target", "", box=None, pad_edge=False)
    for figure in figures:
        if figure.skipped:
            measured.add_row(Text(figure.name, "bold"), "skipped", figure.skipped, "")
        for number, series in enumerate(figure.series):
            name = Text(figure.name, "bold") if not number else Text("")
            measured.add_row(name, series.name, f"{words.range_of(series.values)} {series.unit}", words.costs(series))
        for ratio in figure.ratios:
            judged.add_row(Text(figure.name, "bold"), f"{ratio.of} / {ratio.to}", *_judged(ratio))
        for limit in figure.limits:
            judged.add_row(Text(figure.name, "bold"), f"{limit.what}, {limit.unit}", *_judged(limit))
    console.print(measured)
    console.print()
    console.print(judged)


def _judged(one: Ratio | Limit) -> tuple[str, str, Text]:
    return words.range_of(one.values), words.target(one), MARKS[words.reached(one)]
