"""Settings of the worker, the migrations and the history API."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from service.logs import LogSettings
from service.settings import DEVELOPMENT_SECRET, DatabaseUrl, Host, Port, Token

#: A day: no broker waits for longer. It also excludes inf, which Python accepts as a number.
MAX_HOLD_S = 86_400
#: As much as a worker can keep in memory.
MAX_TOGETHER_BYTES = 64 * 1024 * 1024


class DatabaseSettings(LogSettings):
    """Where the history database is."""

    database_password: str | None = None
    database_url: DatabaseUrl


class WorkerSettings(DatabaseSettings):
    """Settings of a worker, read once when `celery -A history_worker.app` starts."""

    #: Seconds for which a worker keeps a message unacknowledged while PostgreSQL is away. Then it requeues its messages
    #: and stops consuming. It must be shorter than RabbitMQ's `consumer_timeout` (30 minutes by default): after that
    #: RabbitMQ requeues the messages itself.
    hold_s: Annotated[float, Field(gt=0, le=MAX_HOLD_S)] = 1_200
    #: Bytes of messages that one transaction writes at most (safe_consumer/group_commit.py). A megabyte is some 3,000
    #: events. A larger transaction gains nothing, and a redelivery repeats more. 1: each message has its own
    #: transaction.
    together_bytes: Annotated[int, Field(ge=1, le=MAX_TOGETHER_BYTES)] = 1024 * 1024
    #: The port of /metrics, /healthz and /held. None: the worker does not listen.
    metrics_port: Port | None = None
    metrics_host: Host = "127.0.0.1"


class ApiSettings(DatabaseSettings):
    """Settings of the history API, read once at the start of `python -m history_worker.api`."""

    history_api_host: Host = "127.0.0.1"
    history_api_port: Port = 8001
    history_api_token: Token = DEVELOPMENT_SECRET

    def listens_on(self) -> str:
        """Return the address at which other services reach the API."""
        return self.history_api_host
