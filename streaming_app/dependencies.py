"""The parts of the streaming app that requests use. `create_app` makes them once per process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import current_app

from service.host_header import Hosts
from streaming_app.access.auth import Tokens
from streaming_app.history_client import HistoryClient
from streaming_app.recording.publisher import Publisher
from streaming_app.recording.rate_limits import Limits
from streaming_app.recording.stream_views import StreamViews
from streaming_app.settings import StreamingSettings
from streaming_app.videos.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the streaming app that outlive a request."""

    settings: StreamingSettings
    catalogue: Catalogue
    publisher: Publisher
    history: HistoryClient
    tokens: Tokens
    stream_views: StreamViews
    limits: Limits
    hosts: Hosts


def services() -> Services:
    """Return the parts of the running app."""
    return cast(Services, current_app.extensions["flixtrail"])
