"""A load with a memory: a few clients that send views until they are told to stop, and know which were accepted."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import cycle
from threading import Event
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid5

import urllib3

from tests.client import Client, a_view
from tests.waiting import until

CLIENTS = 4
#: Views in one request, in turn: somebody's own one, and what a service sends for many.
SIZES = (1, 60, 1, 20)
#: Between two requests of one client: about 400 views/s in all, so that a machine with two cores has room to scale.
PAUSE_S = 0.2
#: Playbacks that all clients write to, so that several workers update the same row.
PLAYBACKS = 25
#: Longer than anything that the test does to the services.
PATIENCE_S = 60
NAMESPACE = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")


class Load:
    """Runs within a `with` block. After it, every view that was sent has been accepted, once or more."""

    def __init__(self, ingest: Client) -> None:
        self._ingest = ingest
        self._stop = Event()
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._clients: list[Future[None]] = []
        self.accepted: list[str] = []  #: event ids; only ever appended to, so that it can be looked at meanwhile
        self.retries = 0

    def __enter__(self) -> Self:
        self._clients = [self._pool.submit(self._client) for _ in range(CLIENTS)]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._pool.shutdown()
        for client in self._clients:
            client.result()

    def _client(self) -> None:
        position_s = 0
        for size in cycle(SIZES):
            if self._stop.is_set():
                return
            position_s += 10
            views = [_view(number, position_s) for number in range(size)]
            # The same ids again and again: accepted at last, they may have travelled more than once.
            until(partial(self._accepted, views), PATIENCE_S, what="views to be accepted", every_s=0.2)
            self._stop.wait(PAUSE_S)

    def _accepted(self, views: list[dict[str, Any]]) -> bool:
        try:
            answer = self._ingest.post("/api/views", json=views)
        except urllib3.exceptions.HTTPError:
            self.retries += 1
            return False
        if answer.status == 503:
            self.retries += 1
            return False
        assert answer.status == 202, answer.data
        self.accepted.extend(answer.json()["event_ids"])
        return True


def _view(number: int, position_s: int) -> dict[str, Any]:
    viewer_id = f"viewer-{number % PLAYBACKS}"
    playback_id = str(uuid5(NAMESPACE, viewer_id))
    return a_view(viewer_id=viewer_id, playback_id=playback_id, position_s=position_s, played_from_s=position_s - 10)
