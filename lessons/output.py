"""What a lesson told in a real run, kept for its page: docs/lessons/output/NAME.txt."""

from __future__ import annotations

from collections.abc import Sequence

from flixtrail.local.program import ROOT
from lessons.stage import Event, Proved
from lessons.telling import as_text

FOLDER = ROOT / "docs" / "lessons" / "output"


def keep(name: str, told: Sequence[Event]) -> None:
    """Write it down."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.txt").write_text("".join(f"{as_text(event)}\n" for event in told))


def kept(name: str) -> str:
    """Raises FileNotFoundError: `RECORD=1 make lessons` writes it."""
    return (FOLDER / f"{name}.txt").read_text()


def proofs(told: Sequence[Event]) -> int:
    """How many things the broker has confirmed."""
    return sum(isinstance(event, Proved) for event in told)
