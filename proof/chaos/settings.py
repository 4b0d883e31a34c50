"""The settings of a run: options of `python -m proof.chaos`, or environment variables of the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from service.settings import Settings


class ChaosSettings(Settings):
    """The settings, read once at the start."""

    seed: int
    minutes: Annotated[float, Field(ge=0.5, le=24 * 60)] = 2
    #: `all`: the faults of the seed. Otherwise one part is down, from nearly the beginning to the end.
    faults: Literal["all", "broker_down", "database_down"] = "all"
    #: Events per second that the client sends.
    rate: Annotated[float, Field(gt=0, le=5_000)] = 150
    #: The runs' folders and the reports are in its sub-folder `chaos`.
    state: Path = Path("var")
    #: `embedded`: learner mode, without RabbitMQ.
    broker: Literal["rabbitmq", "embedded"] = "rabbitmq"
    #: RabbitMQ in a container of this image, instead of a private node of the installed version.
    broker_image: str | None = None
    #: A page in chromium watches meanwhile. Its history must have everything that it watched.
    browser: bool = False

    @property
    def learner_mode(self) -> bool:
        return self.broker == "embedded"

    @property
    def seconds(self) -> float:
        return self.minutes * 60
