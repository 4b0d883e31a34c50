"""What the broker says about the work queue: RabbitMQ's management API, or pgmq's tables in learner mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString, Protocol
from urllib.parse import quote, urlsplit

import psycopg
import urllib3
from kombu import Connection
from kombu.exceptions import OperationalError
from psycopg.conninfo import make_conninfo

from view_events.topology import DEAD_LETTERS, HISTORY, messages_database

TIMEOUT_S = 2


class QueueAway(Exception):
    """The broker does not answer just now."""


@dataclass(frozen=True)
class Figures:
    """The work queue at one moment. In learner mode nothing says which worker holds which message."""

    ready: int  #: wait for a worker
    unacked: int  #: held by workers: delivered, not acknowledged yet
    redelivered: int  #: deliveries that were not the first (learner mode: of the messages that are still there)
    dead: int  #: in the dead-letter queue
    held: Mapping[str, int] = field(default_factory=dict)  #: unacked by worker


class Queue(Protocol):
    """What both brokers can tell. The methods raise QueueAway."""

    def consumers(self) -> int:
        """How many workers (at least) take messages now."""

    def figures(self) -> Figures:
        """Counts, at most about a second old."""


def queue_of(broker_url: str, management_url: str | None) -> Queue:
    """The work queue at these addresses."""
    if broker_url.startswith("pgmq:"):
        return PgmqQueue(broker_url)
    return RabbitQueue(broker_url, management_url)


class RabbitQueue:
    """On RabbitMQ. Without a management address the counts are those that AMQP tells."""

    def __init__(self, broker_url: str, management_url: str | None) -> None:
        self._broker_url = broker_url
        self._vhost = quote(urlsplit(broker_url).path[1:] or "/", safe="")
        self._management = None
        if management_url:
            parts = urlsplit(management_url)
            self._management = f"http://{parts.hostname}:{parts.port}/api"
            self._headers = urllib3.make_headers(basic_auth=f"{parts.username}:{parts.password}")

    def consumers(self) -> int:
        return self._declared(HISTORY.name)[1]

    def figures(self) -> Figures:
        ready, _ = self._declared(HISTORY.name)
        dead, _ = self._declared(DEAD_LETTERS.name)
        if self._management is None:
            return Figures(ready=ready, unacked=0, redelivered=0, dead=dead)
        with urllib3.PoolManager(timeout=TIMEOUT_S, retries=False, headers=self._headers) as http:
            queue = self._get(http, f"/queues/{self._vhost}/{HISTORY.name}") or {}
            held = self._held(http)
        return Figures(
            ready=ready,
            unacked=sum(held.values()),
            redelivered=queue.get("message_stats", {}).get("redeliver", 0),
            dead=dead,
            held=held,
        )

    def _held(self, http: urllib3.PoolManager) -> dict[str, int]:
        """Unacknowledged messages by worker: a worker's connections carry its name (history_worker/app.py)."""
        names = {
            connection["name"]: (connection.get("user_provided_name") or connection["name"]).partition("@")[0]
            for connection in self._get(http, "/connections") or []
            if "name" in connection
        }
        held: dict[str, int] = {}
        for channel in self._get(http, "/channels") or []:
            # A channel whose connection is just going has an empty list there.
            if channel.get("consumer_count") and channel.get("connection_details"):
                name = names.get(channel["connection_details"]["name"], "?")
                held[name] = held.get(name, 0) + channel.get("messages_unacknowledged", 0)
        return held

    def _declared(self, name: str) -> tuple[int, int]:
        """Messages that are ready, and consumers: asked over AMQP, and so not out of date."""
        try:
            with Connection(self._broker_url, connect_timeout=TIMEOUT_S) as connection:
                declared = connection.default_channel.queue_declare(name, passive=True)
                return declared.message_count, declared.consumer_count
        except (OperationalError, *Connection(self._broker_url).connection_errors) as error:
            raise QueueAway(str(error)) from None
        except Connection(self._broker_url).channel_errors:
            return 0, 0  # no worker has declared it yet

    def _get(self, http: urllib3.PoolManager, path: str) -> Any:
        try:
            answer = http.request("GET", f"{self._management}{path}")
        except urllib3.exceptions.HTTPError as error:
            raise QueueAway(str(error)) from None
        return answer.json() if answer.status == 200 else None  # noqa: PLR2004


class PgmqQueue:
    """In learner mode: the tables that pgmq keeps. A held message is one that is invisible for a while."""

    def __init__(self, broker_url: str) -> None:
        self._conninfo = make_conninfo(messages_database(broker_url), connect_timeout=TIMEOUT_S)

    def consumers(self) -> int:
        # They ask for messages five times a second, and their connections carry their names (services.py).
        polling = (
            "SELECT count(DISTINCT application_name) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name LIKE 'history-worker-%' AND state_change > now() - interval '1 second'"
        )
        return int(self._row(polling)[0])

    def figures(self) -> Figures:
        try:
            ready, unacked, redelivered = self._row(
                "SELECT count(*) FILTER (WHERE vt <= now()), count(*) FILTER (WHERE vt > now()),"
                " coalesce(sum(read_ct - 1) FILTER (WHERE read_ct > 1), 0) FROM pgmq.q_history"
            )
            (dead,) = self._row("SELECT count(*) FROM pgmq.q_views_dead")
        except psycopg.errors.UndefinedTable:
            return Figures(ready=0, unacked=0, redelivered=0, dead=0)  # no worker has declared them yet
        return Figures(ready=int(ready), unacked=int(unacked), redelivered=int(redelivered), dead=int(dead))

    def _row(self, query: LiteralString) -> tuple[Any, ...]:
        try:
            with psycopg.connect(self._conninfo, autocommit=True) as connection:
                return connection.execute(query).fetchone() or (0,)
        except psycopg.OperationalError as error:
            raise QueueAway(str(error)) from None
