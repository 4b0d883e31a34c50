"""What can be chosen about a demo: options of `flixtrail demo`, or environment variables of the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import DirectoryPath, Field

from view_events.settings import BrokerUrl, DatabaseUrl, Port, Settings


class DemoSettings(Settings):
    """Read once, at the start of `flixtrail demo`."""

    port: Port = 8000
    workers: Annotated[int, Field(ge=1, le=32)] = 2
    broker: Literal["auto", "rabbitmq", "embedded"] = "auto"
    videos: DirectoryPath | None = None  #: None: the streaming app makes sample clips
    state: Path = Path("var")
    #: These two always win: then nothing of that kind is started here.
    amqp_url: BrokerUrl | None = None
    database_url: DatabaseUrl | None = None
