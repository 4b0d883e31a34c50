"""The verdict of a run: its last line, and whether it was much slower than the recorded run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from proof.bench.results import Figure

RECORDED = Path(__file__).with_name("recorded.json")
#: Figures in the last line. Their ratios are recorded.
LAST_LINE_FIGURES = ("P1", "P1b", "P2", "P2b", "P3")
CHECKED_FIGURES = ("P1", "P2", "P3")
#: Another machine, or a busy one, gives other ratios. A third less is not a coincidence.
TOLERATED = 0.7


def ratios(figures: Iterable[Figure]) -> dict[str, float]:
    """Return the first ratio of each figure that has one."""
    return {figure.name: figure.ratio for figure in figures if figure.ratio is not None}


def last_line(found: Mapping[str, float]) -> str:
    """Return `bench: P1=120 P1b=0.61 ...`, with `-` for what was not measured."""
    return "bench: " + " ".join(f"{name}={_short(found.get(name))}" for name in LAST_LINE_FIGURES)


def much_slower(found: Mapping[str, float], recorded: Mapping[str, float]) -> list[str]:
    """Return a sentence for each recorded ratio that is now below TOLERATED of its record."""
    return [
        f"{name} is {_short(found[name])}, below {TOLERATED:.0%} of the recorded {_short(recorded[name])}"
        for name in CHECKED_FIGURES
        if name in found and name in recorded and found[name] < TOLERATED * recorded[name]
    ]


def read() -> dict[str, float]:
    """Read the recorded ratios; {} if there are none."""
    return msgspec.json.decode(RECORDED.read_bytes(), type=dict[str, float]) if RECORDED.exists() else {}


def record(found: Mapping[str, float]) -> None:
    """Record the ratios of this run. Ratios that it did not measure stay."""
    kept = read() | {name: round(found[name], 2) for name in LAST_LINE_FIGURES if name in found}
    RECORDED.write_bytes(msgspec.json.format(msgspec.json.encode(dict(sorted(kept.items())))) + b"\n")


def _short(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.3g}"  # noqa: PLR2004
