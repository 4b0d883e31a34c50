"""The workers of a demo, as the broker and their own logs tell of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psutil
import urllib3

from flixtrail.commands.workers import addresses
from local import service_parts
from local.processes import process_tree
from tests.conftest import Demo
from tests.demo import ROOT
from tests.waiting import until
from view_events.topology import HISTORY


class Management:
    """RabbitMQ's management API, for the demo's virtual host. While the broker is away there is nothing."""

    def __init__(self, demo: Demo) -> None:
        broker = demo.running().document["broker"]
        management = urllib3.util.parse_url(broker["management_url"])
        self._base = f"http://{management.netloc}/api"
        self._headers = urllib3.make_headers(basic_auth=management.auth)

    def ask(self, path: str, method: str = "GET", body: object = None) -> Any:
        try:
            with urllib3.PoolManager(timeout=2, retries=False, headers=self._headers) as http:
                answer = http.request(method, self._base + path, json=body)
                return answer.json() if answer.status == 200 else []
        except urllib3.exceptions.HTTPError:
            return []

    def prefetches(self) -> list[int]:
        """How many messages each consumer of the work queue may hold."""
        return [one["prefetch_count"] for one in self._consumers()]

    def consuming_connections(self) -> list[str]:
        """The connections over which workers take messages."""
        return [one["channel_details"]["connection_name"] for one in self._consumers()]

    def _consumers(self) -> list[dict[str, Any]]:
        # Of a queue that was deleted and made anew it also lists the consumers of old, with no channel.
        return [
            one for one in self.ask("/consumers") if one["queue"]["name"] == HISTORY.name and one["channel_details"]
        ]

    def close(self, connection: str) -> None:
        """Close a connection, as an administrator does."""
        self.ask(f"/connections/{connection.replace(' ', '%20').replace('>', '%3E')}", "DELETE")


def logged(demo: Demo, words: str) -> int:
    """How many lines of the workers' logs have these words in them."""
    logs = (demo.state / "log").glob(f"{service_parts.WORKER}*.log")
    return sum(log.read_text(errors="replace").count(words) for log in logs)


def pids(demo: Demo) -> list[tuple[int, list[int]]]:
    return [(worker["pid"], sorted(worker["children"])) for worker in demo.status()["workers"]]


@contextmanager
def with_settings(demo: Demo, **environment: str) -> Iterator[None]:
    """All workers, started again with these settings; and without them in the end."""
    _start_again(demo, environment)
    try:
        yield
    finally:
        _start_again(demo, {})


def _start_again(demo: Demo, environment: dict[str, str]) -> None:
    running = demo.running()
    before = running.workers()
    for worker in before:
        part = service_parts.worker(running.state, worker.name, addresses(running))
        running.supervisor.add(replace(part, environment={**part.environment, "PYTHONPATH": str(ROOT), **environment}))
        for process in process_tree(worker.pid):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue  # it went with its parent
    old = {worker.pid for worker in before}

    def new_ones_consume() -> bool:
        now = {worker.pid for worker in running.workers()} - {None}
        return len(now) == len(old) and not now & old and len(Management(demo).prefetches()) == len(old)

    until(new_ones_consume, 30, what="the workers to be back", every_s=0.1)
