"""Writes `docs/benchmarks.md` from the results of a run, so that nobody types a figure."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from local.unsupervised_part import ROOT
from proof.bench import words
from proof.bench.results import Figure, Limit, Ratio, Results

PAGE = ROOT / "docs" / "benchmarks.md"
PICTURES = ROOT / "docs" / "pictures" / "bench"
MARKS = {True: "reached", False: "**missed**", None: ""}

INTRODUCTION = """\
# Benchmarks

`{command}` measured these figures on {when}, in {minutes:.0f} minutes. `python -m proof.bench page` wrote this page
from them.

How fast something is depends on the machine. How much faster it is than another way of doing the same, on the same
machine, depends on the machine much less. So each figure is a ratio of two things that were measured in turn in one
run. It is the median of all rounds, with the lowest and the highest in brackets. Beside it is the CPU cost of an
event, in microseconds for each group of processes. Everywhere RabbitMQ's queues are quorum queues, messages are
persistent and confirmed, and PostgreSQL's `fsync` and `synchronous_commit` are on. Every trial ends with a check of
every id that was sent. If one id is missing, the run has no figures.

The peers ([proof/bench/peers](../proof/bench/peers/)) are tuned as their documentation advises. They have the same
web server and as many processes and threads, and they acknowledge late, as Flixtrail does. They do not authenticate,
validate or derive anything, which is to their advantage. Load generator, servers and workers share the machine's
cores.
"""


def write(results: Path) -> Path:
    """Write the page, and the pictures that it shows."""
    found = msgspec.json.decode(results.read_bytes(), type=Results)
    pictures = {figure.name: results.with_name(f"{figure.name}.svg") for figure in found.figures}
    shown = {name: path for name, path in pictures.items() if path.exists()}
    PICTURES.mkdir(exist_ok=True)
    for path in shown.values():
        shutil.copyfile(path, PICTURES / path.name)
    PAGE.write_text(render(found, shown))
    return PAGE.relative_to(ROOT)


def render(results: Results, shown: Iterable[str] = ()) -> str:
    """Return the page's text. `shown`: the figures that have a picture."""
    shown = set(shown)
    parts = [
        INTRODUCTION.format(command=results.command, when=results.began[:10], minutes=results.seconds / 60),
        "\n".join(_summary(results.figures)),
        "## The machine\n",
        "\n".join(f"- {name}: {value}" for name, value in results.machine.items()),
        "\nVersions: " + ", ".join(f"{name} {value}" for name, value in results.versions.items()) + ".\n",
        *("\n".join(_section(figure, with_picture=figure.name in shown)) for figure in results.figures),
    ]
    return "\n".join(parts).rstrip() + "\n"


def _summary(figures: Iterable[Figure]) -> Iterator[str]:
    yield "|  | what | median (lowest–highest) | target |  |"
    yield "| --- | --- | --- | --- | --- |"
    for figure in figures:
        if figure.skipped:
            yield f"| {figure.name} | {figure.title} | skipped: {figure.skipped} | | |"
        judged: list[Ratio | Limit] = [*figure.ratios, *figure.limits]
        for one in judged:
            cells = (figure.name, _what(one), words.range_of(one.values), words.target(one), _mark(one))
            yield f"| {' | '.join(cells)} |"
    yield ""


def _section(figure: Figure, *, with_picture: bool) -> Iterator[str]:
    yield f"## {figure.name}: {figure.title}\n"
    yield f"{figure.how}\n"
    if figure.skipped:
        yield f"Skipped: {figure.skipped}\n"
        return
    if with_picture:
        yield f"![{figure.name}, {figure.title}: medians with their spread](pictures/bench/{figure.name}.svg)\n"
    yield "|  | median (lowest–highest) |  | events a round | CPU µs an event |"
    yield "| --- | --- | --- | --- | --- |"
    for one in figure.series:
        events = f"{one.events:,}" if one.events else ""
        yield f"| {one.name} | {words.range_of(one.values)} | {one.unit} | {events} | {words.costs(one)} |"
    yield ""


def _what(one: Ratio | Limit) -> str:
    return f"{one.of} / {one.to}" if isinstance(one, Ratio) else f"{one.what}, {one.unit}"


def _mark(one: Ratio | Limit) -> str:
    return MARKS[words.reached(one)]
