"""The settings of a demo: options of `flixtrail demo`, or environment variables of the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import DirectoryPath, Field

from service.settings import BrokerParts, BrokerUrl, DatabaseUrl, Port


class DemoSettings(BrokerParts):
    """The settings, read once at the start of `flixtrail demo`."""

    port: Port = 8000
    workers: Annotated[int, Field(ge=1, le=32)] = 2
    broker: Literal["auto", "rabbitmq", "embedded"] = "auto"
    videos: DirectoryPath | None = None  #: None: the streaming app makes sample clips
    state: Path = Path("var")
    #: If one of these two is set, the demo starts no broker or no database of its own, whatever else is set.
    amqp_url: BrokerUrl | None = None
    database_password: str | None = None
    database_url: DatabaseUrl | None = None
