"""The client of the history API: the direct, synchronous way between the two services."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import urllib3

#: Seconds to wait for the history API. A page is more useful without the history than after a longer wait.
TIMEOUT_S = 1.0


class HistoryAway(Exception):
    """The history API did not answer in time, or answered with an error. Recording continues; pages show a notice."""


class Refused(Exception):
    """The history API refuses a parameter: an invalid cursor or limit. Answered with 422."""


class TooManyRequests(Exception):
    """This viewer sends too many requests to the history API at a time. Answered with 429; other viewers are not
    affected.
    """


class HistoryClient:
    """HTTP client of `history_worker.api`. Keeps connections open; may be used by many threads."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._http = urllib3.PoolManager(
            maxsize=16,
            headers={"Authorization": f"Bearer {token}"},
            timeout=urllib3.Timeout(total=TIMEOUT_S),
            retries=False,
        )

    def history(self, viewer_id: str, **params: str) -> dict[str, Any]:
        """Return `{"items": [...], "next_cursor"}` of one viewer. Params: cursor, limit, video_id.

        Raises HistoryAway, TooManyRequests, or Refused for a bad parameter.
        """
        return self._ask("GET", "/history", fields={"viewer_id": viewer_id, **params})

    def receipts(self, event_ids: Sequence[str]) -> dict[str, Any]:
        """Return `{"stored": n, "counted": n, "missing": [ids]}`. Raises HistoryAway, Refused."""
        return self._ask("POST", "/receipts", json={"event_ids": list(event_ids)})

    def _ask(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, self._url + path, **arguments)
        except urllib3.exceptions.HTTPError as error:
            raise HistoryAway(f"{type(error).__name__} at {self._url}") from error
        try:
            body: dict[str, Any] = answer.json()
            if answer.status == HTTPStatus.UNPROCESSABLE_ENTITY:
                raise Refused(body["detail"])
            if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
                raise TooManyRequests(body["detail"])
        except (ValueError, LookupError, TypeError) as error:  # another program answers at this address
            raise HistoryAway(f"status {answer.status} from {self._url}, and no answer of a history API") from error
        if answer.status != HTTPStatus.OK:
            raise HistoryAway(f"status {answer.status} from {self._url}")
        return body
