"""Asks the broker about the work queue: RabbitMQ's management API, or pgmq's tables in learner mode."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString, Protocol
from urllib.parse import quote, urlsplit

import psycopg
import urllib3
from kombu.exceptions import OperationalError
from psycopg.conninfo import make_conninfo

from local.errors import BrokerUnreachable
from service.addresses import broker_connection
from view_events.topology import DEAD_LETTERS, HISTORY, messages_database

TIMEOUT_S = 2
#: In learner mode a message that was read is invisible for this many seconds (`visibility_timeout` in celeryconfig.py).
#: If it is not acknowledged by then, another worker reads it.
VISIBILITY_TIMEOUT_S = 15


@dataclass(frozen=True)
class QueueFigures:
    """The work queue at one moment. In learner mode nothing says which worker has which message."""

    ready: int  #: messages that wait for a worker
    unacked: int  #: messages that workers have and have not acknowledged
    redelivered: int  #: repeated deliveries (learner mode: of the messages that are still there)
    dead: int  #: messages in the dead-letter queue
    unacked_by_worker: Mapping[str, int] = field(default_factory=dict)  #: `unacked` by worker


class Queue(Protocol):
    """The questions that both brokers can answer. The methods raise BrokerUnreachable."""

    def consumers(self) -> int:
        """Return how many workers (at least) consume messages now."""

    def figures(self) -> QueueFigures:
        """Return the counts, which are at most about a second old."""

    def unacked_bodies(self, ids: Sequence[int]) -> list[str] | None:
        """Return the bodies of those of these messages that a worker has read and not acknowledged
        (learner mode only).
        """

    def connected_at(self, worker: str) -> float | None:
        """Return when a worker made the connection that consumes messages, in seconds since 1970. None: unknown."""


def queue_of(broker_url: str, management_url: str | None) -> Queue:
    """Return the work queue at these addresses."""
    if broker_url.startswith("pgmq:"):
        return PgmqQueue(broker_url)
    return RabbitQueue(broker_url, management_url)


class RabbitQueue:
    """The work queue on RabbitMQ. Without a management address, AMQP provides the counts."""

    def __init__(self, broker_url: str, management_url: str | None) -> None:
        self._broker_url = broker_url
        self._vhost = quote(urlsplit(broker_url).path[1:] or "/", safe="")
        self._management = None
        if management_url:
            parts = urlsplit(management_url)
            self._management = f"http://{parts.hostname}:{parts.port}/api"
            self._headers = urllib3.make_headers(basic_auth=f"{parts.username}:{parts.password}")

    def consumers(self) -> int:
        return self._counts(HISTORY.name)[1]

    def figures(self) -> QueueFigures:
        ready, _ = self._counts(HISTORY.name)
        dead, _ = self._counts(DEAD_LETTERS.name)
        if self._management is None:
            return QueueFigures(ready=ready, unacked=0, redelivered=0, dead=dead)
        with urllib3.PoolManager(timeout=TIMEOUT_S, retries=False, headers=self._headers) as http:
            queue = self._get(http, f"/queues/{self._vhost}/{HISTORY.name}") or {}
            unacked = self._unacked_by_worker(http)
        return QueueFigures(
            ready=ready,
            unacked=sum(unacked.values()),
            redelivered=queue.get("message_stats", {}).get("redeliver", 0),
            dead=dead,
            unacked_by_worker=unacked,
        )

    def unacked_bodies(self, ids: Sequence[int]) -> list[str] | None:  # noqa: ARG002 (only pgmq numbers its messages)
        return None

    def connected_at(self, worker: str) -> float | None:
        if self._management is None:
            return None
        with urllib3.PoolManager(timeout=TIMEOUT_S, retries=False, headers=self._headers) as http:
            channels = self._get(http, "/channels") or []
            consuming = {
                one["connection_details"]["name"]
                for one in channels
                if one.get("consumer_count") and one.get("connection_details")
            }
            for connection in self._get(http, "/connections") or []:
                named = (connection.get("user_provided_name") or "").partition("@")[0] == worker
                if named and connection.get("name") in consuming and connection.get("connected_at"):
                    return float(connection["connected_at"]) / 1000
        return None

    def _unacked_by_worker(self, http: urllib3.PoolManager) -> dict[str, int]:
        """Return the unacknowledged messages by worker. A worker's connections have its name
        (history_worker/app.py).
        """
        names = {
            connection["name"]: (connection.get("user_provided_name") or connection["name"]).partition("@")[0]
            for connection in self._get(http, "/connections") or []
            if "name" in connection
        }
        unacked: dict[str, int] = {}
        for channel in self._get(http, "/channels") or []:
            # While a connection is being closed, its channel has an empty list there.
            if channel.get("consumer_count") and channel.get("connection_details"):
                name = names.get(channel["connection_details"]["name"], "?")
                unacked[name] = unacked.get(name, 0) + channel.get("messages_unacknowledged", 0)
        return unacked

    def _counts(self, name: str) -> tuple[int, int]:
        """Return the ready messages and the consumers. Asked over AMQP, so the answer is current."""
        try:
            with broker_connection(self._broker_url, connect_timeout=TIMEOUT_S) as connection:
                declared = connection.default_channel.queue_declare(name, passive=True)
                return declared.message_count, declared.consumer_count
        except (OperationalError, *broker_connection(self._broker_url).connection_errors) as error:
            raise BrokerUnreachable(str(error)) from None
        except broker_connection(self._broker_url).channel_errors:
            return 0, 0  # no worker has declared the queue yet

    def _get(self, http: urllib3.PoolManager, path: str) -> Any:
        try:
            answer = http.request("GET", f"{self._management}{path}")
        except urllib3.exceptions.HTTPError as error:
            raise BrokerUnreachable(str(error)) from None
        return answer.json() if answer.status == 200 else None  # noqa: PLR2004


class PgmqQueue:
    """The work queue in learner mode: pgmq's tables. A message that a worker has is one that is
    invisible for a while.
    """

    def __init__(self, broker_url: str) -> None:
        self._conninfo = make_conninfo(messages_database(broker_url), connect_timeout=TIMEOUT_S)

    def consumers(self) -> int:
        # Workers ask for messages five times per second, and their connections have their names (service_parts.py).
        polling = (
            "SELECT count(DISTINCT application_name) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name LIKE 'history-worker-%' AND state_change > now() - interval '1 second'"
        )
        return int(self._row(polling)[0])

    def figures(self) -> QueueFigures:
        try:
            ready, unacked, redelivered = self._row(
                "SELECT count(*) FILTER (WHERE vt <= now()), count(*) FILTER (WHERE vt > now()),"
                " coalesce(sum(read_ct - 1) FILTER (WHERE read_ct > 1), 0) FROM pgmq.q_history"
            )
            (dead,) = self._row("SELECT count(*) FROM pgmq.q_views_dead")
        except psycopg.errors.UndefinedTable:
            return QueueFigures(ready=0, unacked=0, redelivered=0, dead=0)  # no worker has declared the queues yet
        return QueueFigures(ready=int(ready), unacked=int(unacked), redelivered=int(redelivered), dead=int(dead))

    def unacked_bodies(self, ids: Sequence[int]) -> list[str] | None:
        query = "SELECT array_agg(message->>'body') FROM pgmq.q_history WHERE msg_id = ANY(%s) AND vt > now()"
        try:
            (bodies,) = self._row(query, list(ids))
        except psycopg.errors.UndefinedTable:
            return []
        return [b64decode(body).decode(errors="replace") for body in bodies or []]

    def connected_at(self, worker: str) -> float | None:  # noqa: ARG002 (nothing depends on it here)
        return None

    def _row(self, query: LiteralString, *values: object) -> tuple[Any, ...]:
        try:
            with psycopg.connect(self._conninfo, autocommit=True) as connection:
                return connection.execute(query, values or None).fetchone() or (0,)
        except psycopg.OperationalError as error:
            raise BrokerUnreachable(str(error)) from None
