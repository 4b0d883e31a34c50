"""The running demo as the command line sees it: which process is what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psutil

from flixtrail.local import services
from flixtrail.local.errors import DemoError, NotRunning
from flixtrail.local.part import PartStatus
from flixtrail.local.queue import Queue, queue_of
from flixtrail.local.state import State
from flixtrail.local.supervisor import Supervisor, SupervisorAway, tree


@dataclass(frozen=True)
class Worker:
    """One history worker. `state`: running, frozen, starting or stopped."""

    name: str
    pid: int | None
    children: list[int]
    state: str
    metrics_url: str | None


class Running:
    """A demo that runs. Raises NotRunning when none does on that state folder."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.document = state.read()
        self.supervisor = Supervisor(state)
        try:
            self.status()
        except SupervisorAway:
            raise NotRunning(
                f"The demo on {state.folder} is gone (it was killed?). `make demo` starts it again, with its history."
            ) from None

    @property
    def web_url(self) -> str:
        return str(self.document["web"]["url"])

    @property
    def database_url(self) -> str:
        return str(self.document["database"]["url"])

    def queue(self) -> Queue:
        """The work queue."""
        broker = self.document["broker"]
        return queue_of(broker["url"], broker["management_url"])

    def status(self) -> dict[str, PartStatus]:
        """All parts by name."""
        return self.supervisor.status()

    def workers(self) -> list[Worker]:
        """All history workers, by number."""
        found = [part for name, part in self.status().items() if name.startswith(services.WORKER)]
        return sorted(map(self._worker, found), key=lambda worker: (len(worker.name), worker.name))

    def worker(self, name: str) -> Worker:
        """One of them, by its whole name or its number. Raises DemoError that lists those that there are."""
        workers = self.workers()
        for worker in workers:
            if name.partition("@")[0] in {worker.name, worker.name.removeprefix(services.WORKER)}:
                return worker
        raise DemoError(f"NAME: there is no worker {name!r}; there are {', '.join(w.name for w in workers)}")

    def _worker(self, part: PartStatus) -> Worker:
        processes = tree(part.pid)
        if not processes:
            state = "stopped" if part.stopped else "starting"
        elif _is_frozen(processes[0]):
            state = "frozen"
        else:
            state = "running"
        metrics_port = self.supervisor.environment(part.name).get(services.METRICS_PORT)
        return Worker(
            name=part.name,
            pid=processes[0].pid if processes else None,
            children=[process.pid for process in processes[1:]],
            state=state,
            metrics_url=f"http://127.0.0.1:{metrics_port}/metrics" if metrics_port else None,
        )

    def processes(self) -> dict[str, Any]:
        """`flixtrail status --json`: the processes that live now."""
        status = self.status()
        broker = self.document["broker"]
        # In learner mode the database is the broker.
        broker_part = "rabbitmq" if "rabbitmq" in status else "postgres" if broker["kind"] == "embedded" else None
        return {
            "web": {"url": self.web_url, "pids": _pids(status, services.WEB)},
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
                "pids": _pids(status, services.HISTORY_API),
                "metrics_url": f"{self.document['history_api']['url']}/metrics",
            },
            "broker": {"kind": broker["kind"], "url": broker["url"], "pid": _pid(status, broker_part)},
            "database": {"url": self.database_url, "pid": _pid(status, "postgres")},
        }


def _is_frozen(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def _pids(status: dict[str, PartStatus], name: str) -> list[int]:
    return [process.pid for process in tree(_pid(status, name))]


def _pid(status: dict[str, PartStatus], name: str | None) -> int | None:
    return status[name].pid if name in status else None
