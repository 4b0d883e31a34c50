"""Limits how many requests of one viewer the history API runs at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class TooMany(Exception):
    """Too many requests of this viewer run already. Raised by `Share.taken`; answered with 429."""


class Share:
    """Lets at most `most` requests of one viewer run at a time. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._running: Counter[str] = Counter()
        self._lock = Lock()

    @contextmanager
    def taken(self, viewer_id: str) -> Iterator[None]:
        """Count one more running request of the viewer inside the `with` block.

        Raises TooMany. No request waits here, because that would occupy a thread.
        """
        with self._lock:
            if self._running[viewer_id] >= self._most:
                raise TooMany(f"{self._most} requests for this viewer run already")
            self._running[viewer_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[viewer_id] -= 1
                if not self._running[viewer_id]:
                    del self._running[viewer_id]
