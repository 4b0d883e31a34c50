"""The measurements of `make bench`, one in each file. Each returns figures of the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from proof.bench.results import Figure

if TYPE_CHECKING:
    from proof.bench.systems import Systems


class Plan(msgspec.Struct, frozen=True):
    """How much is measured. `step(what)` is called before each piece of work, to show the progress."""

    rounds: int
    share: float  #: of the full number of events; a quick run measures fewer
    wanted: frozenset[str]
    step: Callable[[str], None]
    peers: bool  #: whether peers without a target run, too (P9)
    broker_image: str = ""  #: of a RabbitMQ in a container; empty: the installed one

    def size(self, events: int, at_least: int = 1_000) -> int:
        """Return how many events to measure, for a full run's number of events."""
        return max(at_least, int(events * self.share))


Measure = Callable[["Systems", Plan], list[Figure]]


def table_of() -> dict[str, Measure]:
    """Return the measurement of each figure, in the order of the table."""
    from proof.bench.measurements import (
        draining,
        full_history,
        ingest,
        latency,
        memory,
        scaling,
        single_views,
        video_ranges,
    )

    return {
        "P1": ingest.measure,
        "P1b": ingest.measure,
        "P2": single_views.measure,
        "P2b": single_views.measure,
        "P3": draining.measure,
        "P3b": draining.measure,
        "P4": latency.measure,
        "P5": video_ranges.measure,
        "P6": scaling.measure,
        "P7": full_history.measure,
        "P8": memory.measure,
    }
