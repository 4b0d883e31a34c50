"""What a lesson told in a real run, kept for its pages: docs/lessons/output/en/NAME.txt, and ko/NAME.txt in Korean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lessons.harness.events import Event, Proved
from lessons.harness.language import ENGLISH, korean
from lessons.harness.telling import as_text
from local.unsupervised_part import ROOT

FOLDER = ROOT / "docs" / "lessons" / "output"


def keep(name: str, told: Sequence[Event]) -> None:
    """Write it in both languages."""
    for code, language in (("en", ENGLISH), ("ko", korean(name))):
        path = _path(name, code)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{as_text(event, language)}\n" for event in told))


def kept(name: str, code: str = "en") -> str:
    """Return it. Raises FileNotFoundError if the lesson was not recorded yet."""
    return _path(name, code).read_text()


def proofs(told: Sequence[Event]) -> int:
    """Return how many proofs a lesson has told."""
    return sum(isinstance(event, Proved) for event in told)


def _path(name: str, code: str) -> Path:
    return FOLDER / code / f"{name}.txt"
