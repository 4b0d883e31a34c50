"""Counts views: how many were accepted (from the streaming app) and how many are stored (from the database)."""

from __future__ import annotations

from collections.abc import Sequence
from http.client import HTTPException
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import psycopg

TIMEOUT_S = 2
#: Requests bypass `http_proxy`, because they go to this machine.
DIRECT = build_opener(ProxyHandler({}))
ACCEPTED = "flixtrail_views_accepted_total"
BROKER_UP = "flixtrail_broker_up"
KNOWN = "flixtrail_views_known_total"


def accepted(web_url: str) -> int | None:
    """Return the views answered with 202 since the streaming app started. None while it does not answer."""
    values = _metric(web_url, ACCEPTED)
    return None if values is None else int(sum(values))


def known(metrics_url: str) -> int | None:
    """Return the views that came to a worker again and changed nothing, since that worker started. None: no answer."""
    values = _metric(metrics_url.removesuffix("/metrics"), KNOWN)
    return None if values is None else int(sum(values))


def connected_processes(web_url: str) -> int:
    """Return how many processes of the streaming app have a connection to the broker, and so accept views."""
    return int(sum(_metric(web_url, BROKER_UP) or []))


def _metric(web_url: str, name: str) -> list[float] | None:
    """Return the values of a metric, one for each label. None while the streaming app does not answer."""
    try:
        with DIRECT.open(f"{web_url}/metrics", timeout=TIMEOUT_S) as answer:
            lines = answer.read().decode().splitlines()
    except (URLError, OSError, HTTPException):
        return None
    return [float(line.rpartition(" ")[2]) for line in lines if line.partition(" ")[0].partition("{")[0] == name]


class History:
    """The history database. It keeps one connection open for many queries."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: psycopg.Connection | None = None

    def stored(self, since: float = 0.0) -> int | None:
        """Return how many views received since then (seconds since 1970) are stored. None while the database does not
        answer.
        """
        if not since:
            return self._ask("SELECT count(*) FROM view_events")
        return self._ask("SELECT count(*) FROM view_events WHERE received_at >= to_timestamp(%s)", since)

    def stored_of(self, event_ids: Sequence[str]) -> int | None:
        """Return how many of these ids are stored. None while the database does not answer."""
        return self._ask("SELECT count(*) FROM view_events WHERE event_id = ANY(%s::uuid[])", list(event_ids))

    def close(self) -> None:
        """Close the connection. The next query opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, query: str, *values: object) -> int | None:
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._url, autocommit=True, connect_timeout=TIMEOUT_S)
            row = self._connection.execute(query, values).fetchone()
        except psycopg.Error:
            self.close()
            return None
        return int(row[0]) if row else 0
