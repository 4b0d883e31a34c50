"""Sends views slowly, so that workers have unacknowledged messages at any moment.

A worker writes a view in a millisecond. To see it work, a view must take seconds. So another transaction inserts the
ids of the next views first and does not commit. A worker that writes one of them waits for that transaction, as
PostgreSQL requires, and keeps its message unacknowledged meanwhile. Then the transaction is rolled back, and the worker
continues. The worker is unchanged, and no other view waits, because only these ids are locked.

Two transactions take turns. One is rolled back when all views of the other one have been sent. So at every moment some
ids are locked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle, islice
from time import monotonic, sleep
from typing import Any

import psycopg

from view_events.event import new_event_id

#: Seconds for which views of one transaction are sent. A view then waits for up to twice as long. That is well below
#: the 8 s after which a worker considers a statement stuck (service/database.py).
TURN_S = 2
#: If this program is stopped or dies, PostgreSQL ends the transaction after this time.
IDLE_TIMEOUT_MS = 5_000
CONNECT_TIMEOUT_S = 2

INSERT = (
    "INSERT INTO view_events (event_id, viewer_id, video_id, playback_id, kind, position_s, at, received_at)"
    " VALUES (%(event_id)s, %(viewer_id)s, %(video_id)s, %(playback_id)s, %(kind)s, %(position_s)s, now(), now())"
)

View = dict[str, Any]


def send_slowly(
    database_url: str,
    post: Callable[[list[View]], list[str]],
    views: Iterator[View],
    rate: float,
    accepted: list[str],
) -> None:
    """Post the views at `rate` per second, one per request, while their ids are locked.

    Each accepted id is added to `accepted` as soon as its answer is there.
    """
    left: list[View] = []
    transactions = (LockingTransaction(database_url), LockingTransaction(database_url))
    try:
        for transaction in cycle(transactions):
            turn = [*left, *islice(views, round(rate * TURN_S) - len(left))]
            if not turn:
                break
            transaction.lock(turn)
            left = _send(turn, post, rate, accepted)
            (other,) = (one for one in transactions if one is not transaction)
            other.roll_back()
        sleep(TURN_S if accepted else 0)
    finally:
        for transaction in transactions:
            transaction.roll_back()


def _send(turn: list[View], post: Callable[[list[View]], list[str]], rate: float, accepted: list[str]) -> list[View]:
    """Post the views of one turn. Returns those for which there was no time, because answers are slow on a busy
    machine.

    They get new ids. The old ones are locked for a while, and the next transaction waits for them.
    """
    began = monotonic()
    for number, view in enumerate(turn, start=1):
        accepted += post([view])
        if monotonic() - began > TURN_S:
            return [{**later, "event_id": str(new_event_id())} for later in turn[number:]]
        sleep(max(0.0, began + number / rate - monotonic()))
    return []


class LockingTransaction:
    """A transaction that locks the ids of views."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: psycopg.Connection | None = None

    def lock(self, views: list[View]) -> None:
        """Lock the ids of these views. If the database is away, no lock is needed: workers then keep all messages
        unacknowledged.
        """
        self.roll_back()
        with suppress(psycopg.Error):
            self._connection = psycopg.connect(
                self._url,
                connect_timeout=CONNECT_TIMEOUT_S,
                options=f"-c idle_in_transaction_session_timeout={IDLE_TIMEOUT_MS} -c statement_timeout=2000",
            )
            with self._connection.cursor() as cursor:
                cursor.executemany(INSERT, views)

    def roll_back(self) -> None:
        """Roll the transaction back. Nothing of it is stored."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.rollback()
            self._connection.close()
            self._connection = None
