"""Stops the demo step by step. First nothing new is accepted, then accepted views are written."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import sleep

from local import service_parts
from local.errors import StopNow, SupervisorUnreachable
from local.part import PartStatus
from local.processes import process_tree, signal_all
from local.supervisor import POLL_INTERVAL_S, Supervisor
from local.terminal_output import TerminalOutput

#: Seconds for the supervisor to end. Without parts it needs half a second.
SUPERVISOR_STOP_S = 3


class Shutdown:
    """Stops all parts and the supervisor. `stop_now` returns whether Ctrl-C was pressed a second time."""

    def __init__(self, supervisor: Supervisor, output: TerminalOutput, stop_now: Callable[[], bool]) -> None:
        self._supervisor = supervisor
        self._output = output
        self._stop_now = stop_now

    def run(self, supervisord: subprocess.Popen[bytes]) -> None:
        """Stop everything and return when supervisord is gone. If a step failed, some parts may be left:
        `leftover_processes` ends them.
        """
        try:
            if supervisord.poll() is None:
                self._steps()
                with suppress(subprocess.TimeoutExpired):
                    supervisord.wait(SUPERVISOR_STOP_S)
        except SupervisorUnreachable:
            pass
        except StopNow:
            self._output.print("killing what is left")
        supervisord.kill()
        supervisord.wait()

    def _steps(self) -> None:
        status = self._supervisor.status()
        workers = [name for name in status if name.startswith(service_parts.WORKER)]
        thaw(status, workers)
        self._stop("the streaming app: nothing new is accepted", [service_parts.WEB])
        self._stop("the history workers: their messages are written or requeued", workers)
        self._stop("the history API, Flower", [service_parts.HISTORY_API, service_parts.FLOWER])
        self._stop("the broker, the database", ["rabbitmq", "postgres"])
        self._stop("", ["epmd"])
        self._supervisor.shutdown()

    def _stop(self, what: str, names: Sequence[str]) -> None:
        status = self._supervisor.status()
        running = [name for name in names if name in status and not status[name].stopped]
        if what and running:
            self._output.print(f"stopping {what}")
        for name in running:
            self._supervisor.stop(name)
        # If a part takes longer than its `stop_wait_s`, the supervisor kills it.
        while any(self._supervisor.status()[name].pid for name in running):
            if self._stop_now():
                raise StopNow
            sleep(POLL_INTERVAL_S)


def thaw(status: dict[str, PartStatus], names: Sequence[str]) -> None:
    """Let frozen processes continue. Otherwise they do not react to the signal that stops them."""
    for name in names:
        signal_all(process_tree(status[name].pid), signal.SIGCONT)
