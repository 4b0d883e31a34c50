"""The running demo for the command line: its processes and addresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil

from local import service_parts
from local.errors import DemoError, NotRunning, SupervisorUnreachable
from local.part import PartStatus
from local.processes import process_tree, web_processes
from local.queue import Queue, queue_of
from local.state import State
from local.suggestions import did_you_mean
from local.supervisor import Supervisor
from local.view_counts import History


@dataclass(frozen=True)
class Worker:
    """One history worker. `state`: running, frozen, starting or stopped."""

    name: str
    pid: int | None
    children: list[int]
    state: str
    metrics_url: str | None


class RunningDemo:
    """A running demo. Raises NotRunning if none runs on that state folder."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.document = state.read()
        self.supervisor = Supervisor(state)
        self._history: History | None = None
        try:
            self.status()
        except SupervisorUnreachable:
            raise NotRunning(
                f"The demo on {state.folder} is gone (it was killed?). `make demo` starts it again, with its history."
            ) from None

    @property
    def web_url(self) -> str:
        return str(self.document["web"]["url"])

    @property
    def database_url(self) -> str:
        return str(self.document["database"]["url"])

    @property
    def learner_mode(self) -> bool:
        """Whether the messages are in PostgreSQL."""
        return bool(self.document["broker"]["kind"] == "embedded")

    def streaming_app_started_at(self) -> float:
        """When the streaming app was last started, in seconds since 1970. Its counters begin at that time."""
        try:
            return (self.state.parts / f"{service_parts.WEB}.pid").stat().st_mtime  # written by local/launcher.py
        except FileNotFoundError:
            return 0.0

    def stored(self) -> int | None:
        """Return how many views received since then are stored. None while the database does not answer."""
        if self._history is None:
            self._history = History(self.database_url)
        return self._history.stored(self.streaming_app_started_at())

    def queue(self) -> Queue:
        """Return the work queue."""
        broker = self.document["broker"]
        return queue_of(broker["url"], broker["management_url"])

    def status(self) -> dict[str, PartStatus]:
        """Return all parts by name."""
        return self.supervisor.status()

    def workers(self) -> list[Worker]:
        """Return all history workers, by number."""
        found = [part for name, part in self.status().items() if name.startswith(service_parts.WORKER)]
        return sorted(map(self._worker, found), key=lambda worker: (len(worker.name), worker.name))

    def worker(self, name: str) -> Worker:
        """Return one worker by its whole name or its number. Raises DemoError, which lists the existing ones."""
        workers = self.workers()
        for worker in workers:
            if name.partition("@")[0] in {worker.name, worker.name.removeprefix(service_parts.WORKER)}:
                return worker
        names = [worker.name for worker in workers]
        there = f"there are {', '.join(names)}" if names else "there is none"
        raise DemoError(f"NAME: there is no worker {name!r}; {there}.{did_you_mean(name, names)}")

    def _worker(self, part: PartStatus) -> Worker:
        processes = process_tree(part.pid)
        if not processes:
            state = "stopped" if part.stopped else "starting"
        elif _is_frozen(processes[0]):
            state = "frozen"
        else:
            state = "running"
        metrics_port = self.supervisor.environment(part.name).get(service_parts.METRICS_PORT)
        return Worker(
            name=part.name,
            pid=processes[0].pid if processes else None,
            children=[process.pid for process in processes[1:]],
            state=state,
            metrics_url=f"http://127.0.0.1:{metrics_port}/metrics" if metrics_port else None,
        )

    def processes(self) -> dict[str, Any]:
        """Return the living processes, for `flixtrail status --json`."""
        status = self.status()
        broker = self.document["broker"]
        # In learner mode the database is the broker.
        broker_part = "rabbitmq" if "rabbitmq" in status else "postgres" if broker["kind"] == "embedded" else None
        return {
            "web": {"url": self.web_url, "pids": _pids(status, service_parts.WEB)},
            "workers": [
                {
                    "name": worker.name,
                    "pid": worker.pid,
                    "children": worker.children,
                    "metrics_url": worker.metrics_url,
                }
                for worker in self.workers()
                if worker.pid
            ],
            "history_api": {
                "url": self.document["history_api"]["url"],
                "pids": _pids(status, service_parts.HISTORY_API),
                "metrics_url": f"{self.document['history_api']['url']}/metrics",
            },
            "broker": {"kind": broker["kind"], "url": broker["url"], "pid": _pid(status, broker_part)},
            "database": {"url": self.database_url, "pid": _pid(status, "postgres")},
            **({"flower": flower} if (flower := self._flower(status)) else {}),
        }

    def _flower(self, status: dict[str, PartStatus]) -> dict[str, Any] | None:
        """Return Flower's entry. None in learner mode, which has no Flower."""
        known = self.document.get("flower")
        return {**known, "pids": _pids(status, service_parts.FLOWER)} if known else None


def _is_frozen(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def _pids(status: dict[str, PartStatus], name: str) -> list[int]:
    return [process.pid for process in web_processes(_pid(status, name))]


def _pid(status: dict[str, PartStatus], name: str | None) -> int | None:
    return status[name].pid if name in status else None
