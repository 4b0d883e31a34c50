"""A small HTTP client of the streaming app, as a test wants it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from json import dumps
from typing import Any
from uuid import uuid4

import urllib3

from tests.waiting import until
from view_events.event import new_event_id


class Client:
    """Somebody with a bearer token, or nobody."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = urllib3.PoolManager(maxsize=32, timeout=10, retries=False)

    def get(self, path: str, headers: Mapping[str, str] | None = None, **fields: str) -> urllib3.BaseHTTPResponse:
        return self._http.request("GET", self.url + path, fields=fields, headers={**self.headers, **(headers or {})})

    def post(
        self, path: str, body: bytes | str | None = None, *, json: Any = None, headers: Mapping[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        sent = {**self.headers, **(headers or {})}
        if json is not None:
            sent["Content-Type"] = "application/json"
            body = dumps(json)  # ASCII: what no UTF-8 can carry is escaped, and arrives
        return self._http.request("POST", self.url + path, body=body, headers=sent)

    def record(self, views: Iterable[Mapping[str, Any]]) -> list[str]:
        """Post these views until they are accepted; their ids. Fails when they are refused for good.

        Does what a client has to: on a busy machine a confirm may take longer than a request waits, and 503 means
        that the same events may be sent again.
        """
        sent = list(views)
        answers = []

        def accepted() -> bool:
            answers.append(self.post("/api/views", json=sent))
            assert answers[-1].status in {202, 503}, (answers[-1].status, answers[-1].data)
            return answers[-1].status == 202

        until(accepted, what="views to be accepted")
        ids: list[str] = answers[-1].json()["event_ids"]
        return ids

    def history(self, **fields: str) -> list[dict[str, Any]]:
        """The items. Asks again for a while if the history is away just now (503), as on a busy machine."""
        answers = []

        def answered() -> bool:
            answers.append(self.get("/api/history", None, **fields))
            return answers[-1].status != 503

        until(answered, what="the history to answer")
        assert answers[-1].status == 200, (answers[-1].status, answers[-1].data)
        items: list[dict[str, Any]] = answers[-1].json()["items"]
        return items


def a_view(**fields: Any) -> dict[str, Any]:
    """A good view, with ids made here."""
    return {
        "event_id": str(new_event_id()),
        "playback_id": str(uuid4()),
        "kind": "progress",
        "video_id": "clip-1",
        "position_s": 10.0,
        "at": datetime.now(UTC).isoformat(),
        **fields,
    }
