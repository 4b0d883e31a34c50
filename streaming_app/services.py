"""What a request may use, made once a process by `create_app`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import current_app

from streaming_app.auth import Tokens
from streaming_app.catalogue import Catalogue
from streaming_app.history_client import HistoryClient
from streaming_app.publisher import Publisher
from streaming_app.settings import StreamingSettings
from streaming_app.stream_views import StreamViews


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the streaming app that outlive a request."""

    settings: StreamingSettings
    catalogue: Catalogue
    publisher: Publisher
    history: HistoryClient
    tokens: Tokens
    stream_views: StreamViews


def services() -> Services:
    """Those of the running app."""
    return cast(Services, current_app.extensions["flixtrail"])
