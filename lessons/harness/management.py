"""A client of RabbitMQ's management API: what the broker says about itself,
https://www.rabbitmq.com/docs/management.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

import urllib3

TIMEOUT_S = 10


class Management:
    """The HTTP API of one broker.

    Raises urllib3.exceptions.HTTPError if it does not answer, LookupError for 404, ValueError for other errors.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._base = f"{parts.scheme}://{parts.hostname}:{parts.port}/api/"
        self._pool = urllib3.PoolManager(
            headers=urllib3.make_headers(basic_auth=f"{parts.username}:{parts.password}"),
            timeout=TIMEOUT_S,
            retries=False,
        )
        self.user = parts.username or ""

    def get(self, *path: str) -> Any:
        """Return the JSON at this path. Each part is quoted: `get("queues", vhost, name)`."""
        return self._ask("GET", path, None)

    def put(self, *path: str, body: object = None) -> None:
        self._ask("PUT", path, {} if body is None else body)

    def post(self, *path: str, body: object) -> Any:
        return self._ask("POST", path, body)

    def delete(self, *path: str) -> None:
        self._ask("DELETE", path, None)

    def answers(self) -> bool:
        """Return whether the API answers."""
        try:
            self.get("overview")
        except (urllib3.exceptions.HTTPError, ValueError):
            return False
        return True

    @property
    def version(self) -> tuple[int, ...]:
        """RabbitMQ's version: (3, 10, 8)."""
        said = self.get("overview")["rabbitmq_version"]
        return tuple(int(part) for part in said.split("-")[0].split(".")[:3])

    def _ask(self, method: str, path: tuple[str, ...], body: object) -> Any:
        url = self._base + "/".join(quote(part, safe="") for part in path)
        response = self._pool.request(method, url, json=body) if body is not None else self._pool.request(method, url)
        if response.status == 404:
            raise LookupError(f"{method} {url}: there is none")
        if response.status >= 400:
            raise ValueError(f"{method} {url}: {response.status} {response.data.decode(errors='replace')}")
        return response.json() if response.data else None
