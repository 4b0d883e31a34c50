"""Settings of the worker, the migrations and the history API."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from view_events.logs import LogSettings
from view_events.settings import DEVELOPMENT_SECRET, DatabaseUrl, Port


class DatabaseSettings(LogSettings):
    """Where the history is kept."""

    database_url: DatabaseUrl


class WorkerSettings(DatabaseSettings):
    """Read once, when `celery -A history_worker.app` starts."""

    #: Seconds for which a worker holds a message while PostgreSQL is away; then it gives back what it holds and waits
    #: with empty hands. Shorter than RabbitMQ's `consumer_timeout` (30 minutes by default), after which the broker
    #: would close the worker's channel.
    hold_s: Annotated[float, Field(gt=0)] = 1_200
    #: Bytes of messages that one transaction writes at the most (history_worker/gathering.py): a megabyte is some 3,000
    #: events. Past that a bigger one gains nothing, and a redelivery repeats more. 1: each message by itself.
    together_bytes: Annotated[int, Field(ge=1)] = 1024 * 1024
    #: Where the worker answers /metrics and /healthz. None: nowhere.
    metrics_port: Port | None = None
    metrics_host: str = "127.0.0.1"


class ApiSettings(DatabaseSettings):
    """Read once, at the start of `python -m history_worker.api`."""

    history_api_host: str = "127.0.0.1"
    history_api_port: Port = 8001
    history_api_token: Annotated[str, Field(min_length=16)] = DEVELOPMENT_SECRET

    def listens_on(self) -> str:
        """Where other services ask."""
        return self.history_api_host
