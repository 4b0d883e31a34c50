"""The streaming app's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import DirectoryPath, Field

from view_events.logs import LogSettings
from view_events.settings import DEVELOPMENT_SECRET, Port


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

    #: Whether nginx is in front (deploy/nginx): it then sends the video bytes, and says how it was reached.
    behind_proxy: bool = False

    def listens_on(self) -> str:
        """Where viewers come in."""
        return self.host
