"""What was accepted (the streaming app says) and what is stored (the database says)."""

from __future__ import annotations

from collections.abc import Sequence
from http.client import HTTPException
from urllib.error import URLError
from urllib.request import urlopen

import psycopg

TIMEOUT_S = 2
ACCEPTED = "flixtrail_views_accepted_total"
BROKER_UP = "flixtrail_broker_up"


def accepted(web_url: str) -> int | None:
    """Views answered 202 since the streaming app started; None while it does not answer."""
    values = _metric(web_url, ACCEPTED)
    return None if values is None else int(sum(values))


def connected_processes(web_url: str) -> int:
    """How many processes of the streaming app have a connection to the broker, and so accept views."""
    return int(sum(_metric(web_url, BROKER_UP) or []))


def _metric(web_url: str, name: str) -> list[float] | None:
    """The values of a metric, one for each of its labels; None while the streaming app does not answer."""
    try:
        with urlopen(f"{web_url}/metrics", timeout=TIMEOUT_S) as answer:  # noqa: S310 (our own http:// address)
            lines = answer.read().decode().splitlines()
    except (URLError, OSError, HTTPException):
        return None
    return [float(line.rpartition(" ")[2]) for line in lines if line.partition(" ")[0].partition("{")[0] == name]


class History:
    """The history database, asked again and again over one connection."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: psycopg.Connection | None = None

    def stored(self) -> int | None:
        """All view events that are stored; None while the database does not answer."""
        return self._ask("SELECT count(*) FROM view_events")

    def stored_of(self, event_ids: Sequence[str]) -> int | None:
        """How many of these ids are stored; None while the database does not answer."""
        return self._ask("SELECT count(*) FROM view_events WHERE event_id = ANY(%s::uuid[])", list(event_ids))

    def _ask(self, query: str, *values: object) -> int | None:
        try:
            if self._connection is None:
                self._connection = psycopg.connect(self._url, autocommit=True, connect_timeout=TIMEOUT_S)
            row = self._connection.execute(query, values).fetchone()
        except psycopg.Error:
            self._connection = None
            return None
        return int(row[0]) if row else 0
