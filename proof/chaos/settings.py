"""What can be chosen about a run: options of `python -m proof.chaos`, or environment variables of the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from view_events.settings import Settings


class ChaosSettings(Settings):
    """Read once, at the start."""

    seed: int
    minutes: Annotated[float, Field(ge=0.5, le=24 * 60)] = 2
    #: `all`: what the seed picks. Else one part is down, nearly from the beginning to the end.
    faults: Literal["all", "broker_down", "database_down"] = "all"
    #: Events a second that the client sends.
    rate: Annotated[float, Field(gt=0, le=5_000)] = 150
    #: Folders of runs, and reports, are made in its `chaos`.
    state: Path = Path("var")
    #: RabbitMQ in a container of this image, instead of a private node of the version that is installed.
    broker_image: str | None = None

    @property
    def seconds(self) -> float:
        return self.minutes * 60
