"""Finds the processes of a part of the running stack."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import psutil

from local import service_parts
from local.part import PartStatus
from local.processes import process_tree, signal_all, web_processes
from local.supervisor import Supervisor

BROKER, DATABASE = "rabbitmq", "postgres"
Parts = Mapping[str, PartStatus]


def pid_of(supervisor: Supervisor, name: str) -> int | None:
    """Return the process of a part that the supervisor started. None while it is not there."""
    status = supervisor.status()
    return status[name].pid if name in status else None


def processes(supervisor: Supervisor, part: str, which: int) -> list[psutil.Process]:
    """Return the current processes of a part (`schedule.PARTS`, without the broker). `which` chooses if there are
    several.

    The list is empty while the part is not there, for example while it is being restarted.
    """
    return FIND[part](supervisor.status(), which)


def _web_main(status: Parts, _which: int) -> list[psutil.Process]:
    return process_tree(status[service_parts.WEB].pid)[:1]


def _web_child(status: Parts, which: int) -> list[psutil.Process]:
    return _one(web_processes(status[service_parts.WEB].pid)[1:], which)


def _worker_parent(status: Parts, which: int) -> list[psutil.Process]:
    return _worker(status, which)[:1]


def _worker_child(status: Parts, which: int) -> list[psutil.Process]:
    return _one(_worker(status, which)[1:], which // 2)


def _database(status: Parts, _which: int) -> list[psutil.Process]:
    return process_tree(status[DATABASE].pid)


def _database_backend(status: Parts, which: int) -> list[psutil.Process]:
    return _one([process for process in process_tree(status[DATABASE].pid)[1:] if _serves_somebody(process)], which)


def _everything(status: Parts, _which: int) -> list[psutil.Process]:
    # Without the broker, which may be in a container.
    return [process for name, one in status.items() if name != BROKER for process in process_tree(one.pid)]


FIND: dict[str, Callable[[Parts, int], list[psutil.Process]]] = {
    "web-main": _web_main,
    "web-child": _web_child,
    "worker-parent": _worker_parent,
    "worker-child": _worker_child,
    "database": _database,
    "database-backend": _database_backend,
    "everything": _everything,
}


def _worker(status: Parts, which: int) -> list[psutil.Process]:
    """Return one worker: its parent and its children."""
    workers = sorted(name for name in status if name.startswith(service_parts.WORKER))
    return process_tree(status[workers[which % len(workers)]].pid)


def _one(found: Sequence[psutil.Process], which: int) -> list[psutil.Process]:
    return [found[which % len(found)]] if found else []


def _serves_somebody(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return " flixtrail " in " ".join(process.cmdline())
    return False


def kill(found: Sequence[psutil.Process]) -> None:
    """Send SIGKILL to those that still live."""
    signal_all(found, signal.SIGKILL)


def freeze(found: Sequence[psutil.Process]) -> None:
    """Send SIGSTOP to those that still live."""
    signal_all(found, signal.SIGSTOP)


def thaw(found: Sequence[psutil.Process]) -> None:
    """Send SIGCONT to those that still live."""
    signal_all(found, signal.SIGCONT)
