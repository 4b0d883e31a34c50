"""Asks the history API: the direct, synchronous way between the two services."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import urllib3

#: A page that waits longer for the history is better served without it.
TIMEOUT_S = 1.0


class HistoryAway(Exception):
    """The history API did not answer in time, or not well. Recording goes on without it; pages say so."""


class Refused(Exception):
    """The history API does not take a parameter: a cursor that it did not give, a limit. Answered with 422."""


class HistoryClient:
    """HTTP client of `history_worker.api`, with connections kept open; safe for many threads."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._http = urllib3.PoolManager(
            maxsize=16,
            headers={"Authorization": f"Bearer {token}"},
            timeout=urllib3.Timeout(total=TIMEOUT_S),
            retries=False,
        )

    def history(self, viewer_id: str, **params: str) -> dict[str, Any]:
        """`{"items": [...], "next_cursor"}` of one viewer; params: cursor, limit, video_id.

        Raises HistoryAway, and Refused for a bad parameter.
        """
        return self._ask("GET", "/history", fields={"viewer_id": viewer_id, **params})

    def receipts(self, event_ids: Sequence[str]) -> dict[str, Any]:
        """`{"stored": n, "counted": n, "missing": [ids]}`. Raises HistoryAway, Refused."""
        return self._ask("POST", "/receipts", json={"event_ids": list(event_ids)})

    def _ask(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, self._url + path, **arguments)
        except urllib3.exceptions.HTTPError as error:
            raise HistoryAway(f"{type(error).__name__} at {self._url}") from error
        if answer.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            raise Refused(answer.json()["detail"])
        if answer.status != HTTPStatus.OK:
            raise HistoryAway(f"status {answer.status} from {self._url}")
        body: dict[str, Any] = answer.json()
        return body
