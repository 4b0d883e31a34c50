"""Which processes a part of the running stack is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import psutil

from flixtrail.local import services
from flixtrail.local.part import PartStatus
from flixtrail.local.supervisor import Supervisor, tree

BROKER, DATABASE = "rabbitmq", "postgres"
Parts = Mapping[str, PartStatus]


def pid_of(supervisor: Supervisor, name: str) -> int | None:
    """The process of a part as the supervisor started it; None while it is not there."""
    status = supervisor.status()
    return status[name].pid if name in status else None


def processes(supervisor: Supervisor, part: str, which: int) -> list[psutil.Process]:
    """Those of a part (`schedule.PARTS`, without the broker), now; `which` chooses where there is a choice.

    None while the part is not there: it may be between two lives.
    """
    return FIND[part](supervisor.status(), which)


def _web_main(status: Parts, _which: int) -> list[psutil.Process]:
    return tree(status[services.WEB].pid)[:1]


def _web_child(status: Parts, which: int) -> list[psutil.Process]:
    return _one(tree(status[services.WEB].pid)[1:], which)


def _worker_parent(status: Parts, which: int) -> list[psutil.Process]:
    return _worker(status, which)[:1]


def _worker_child(status: Parts, which: int) -> list[psutil.Process]:
    return _one(_worker(status, which)[1:], which // 2)


def _database(status: Parts, _which: int) -> list[psutil.Process]:
    return tree(status[DATABASE].pid)


def _database_backend(status: Parts, which: int) -> list[psutil.Process]:
    return _one([process for process in tree(status[DATABASE].pid)[1:] if _serves_somebody(process)], which)


def _everything(status: Parts, _which: int) -> list[psutil.Process]:
    # Without the broker: that may live in a container.
    return [process for name, one in status.items() if name != BROKER for process in tree(one.pid)]


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
    """One worker: its parent and its children."""
    workers = sorted(name for name in status if name.startswith(services.WORKER))
    return tree(status[workers[which % len(workers)]].pid)


def _one(found: Sequence[psutil.Process], which: int) -> list[psutil.Process]:
    return [found[which % len(found)]] if found else []


def _serves_somebody(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return " flixtrail " in " ".join(process.cmdline())
    return False


def kill(found: Sequence[psutil.Process]) -> None:
    """SIGKILL, to those that still live."""
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def freeze(found: Sequence[psutil.Process]) -> None:
    """SIGSTOP, to those that still live."""
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.suspend()


def thaw(found: Sequence[psutil.Process]) -> None:
    """SIGCONT, to those that still live. A process that has got the number of one that is gone is left alone."""
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.resume()
