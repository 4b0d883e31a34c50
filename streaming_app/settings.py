"""The streaming app's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import DirectoryPath, Field, model_validator

from view_events.logs import LogSettings
from view_events.settings import DEVELOPMENT_SECRET, LOOPBACK, Port


class StreamingSettings(LogSettings):
    """Read once, at the start of `python -m streaming_app`."""

    host: str = "127.0.0.1"
    port: Port = 8000
    web_processes: Annotated[int, Field(ge=1, le=64)] = 2
    #: Threads of one process that run Flask. Video bytes need none.
    web_threads: Annotated[int, Field(ge=1, le=512)] = 32
    videos: DirectoryPath | None = None  #: None: sample clips are made below `cache`
    cache: Path = Path("var/cache")
    #: Where views wait on this machine's disk while the broker is away: a disk that outlives the process, one folder
    #: for all processes (and replicas) of one machine.
    outbox: Path = Path("var/outbox")
    #: What all files in that folder may take together; full means 503.
    outbox_bytes: Annotated[int, Field(ge=1024 * 1024)] = 1024 * 1024 * 1024
    secret_key: Annotated[str, Field(min_length=16)] = DEVELOPMENT_SECRET
    history_api_url: Annotated[str, Field(pattern=r"^https?://")] = "http://127.0.0.1:8001"
    history_api_token: Annotated[str, Field(min_length=16)] = DEVELOPMENT_SECRET

    @model_validator(mode="after")
    def _no_default_secret_outside_loopback(self) -> Self:
        if self.host not in LOOPBACK and DEVELOPMENT_SECRET in {self.secret_key, self.history_api_token}:
            raise ValueError(f"SECRET_KEY and HISTORY_API_TOKEN must be set to listen on {self.host}")
        return self
