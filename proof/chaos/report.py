"""The report of a run: one HTML file with a timeline, that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from proof.chaos.player import Happened


def write(path: Path, samples: Sequence[Mapping[str, float | None]], faults: Sequence[Happened], summary: str) -> None:
    """The report of a run with these samples (watching.Watch) and faults, to this path."""
    rows = "".join(f"<tr><td>{fault.began_s:.1f}<td>{html.escape(fault.text)}" for fault in faults)
    page = f"<!doctype html><meta charset=utf-8><title>chaos</title><p>{html.escape(summary)}<p>{len(samples)}<table>{rows}</table>"
    path.write_text(page)
