"""Stops the demo step by step. First nothing new is accepted, then what was accepted is written."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import sleep

import psutil

from local import service_parts
from local.part import PartStatus
from local.supervisor import POLL_S, Supervisor, SupervisorAway, tree
from local.terminal_output import Teller

#: Seconds for the supervisor to end. Without parts it needs half a second.
SUPERVISOR_STOP_S = 3


class HurryUp(Exception):
    """Ctrl-C was pressed a second time. A step raises it; the remaining parts are then killed."""


class Ladder:
    """Stops all parts and the supervisor. `hurry` returns whether Ctrl-C was pressed a second time."""

    def __init__(self, supervisor: Supervisor, teller: Teller, hurry: Callable[[], bool]) -> None:
        self._supervisor = supervisor
        self._teller = teller
        self._hurry = hurry

    def climb_down(self, supervisord: subprocess.Popen[bytes]) -> None:
        """Stop everything and return when supervisord is gone. If a step failed, some parts may be left:
        `leftover_processes` ends them.
        """
        try:
            if supervisord.poll() is None:
                self._steps()
                with suppress(subprocess.TimeoutExpired):
                    supervisord.wait(SUPERVISOR_STOP_S)
        except SupervisorAway:
            pass
        except HurryUp:
            self._teller.say("killing what is left")
        supervisord.kill()
        supervisord.wait()

    def _steps(self) -> None:
        status = self._supervisor.status()
        workers = [name for name in status if name.startswith(service_parts.WORKER)]
        thaw(status, workers)
        self._stop("the streaming app: nothing new is accepted", [service_parts.WEB])
        self._stop("the history workers: what they hold is written or goes back", workers)
        self._stop("the history API, Flower", [service_parts.HISTORY_API, service_parts.FLOWER])
        self._stop("the broker, the database", ["rabbitmq", "postgres"])
        self._stop("", ["epmd"])
        self._supervisor.shutdown()

    def _stop(self, what: str, names: Sequence[str]) -> None:
        status = self._supervisor.status()
        running = [name for name in names if name in status and not status[name].stopped]
        if what and running:
            self._teller.say(f"stopping {what}")
        for name in running:
            self._supervisor.stop(name)
        # If a part takes longer than its `stop_wait_s`, the supervisor kills it.
        while any(self._supervisor.status()[name].pid for name in running):
            if self._hurry():
                raise HurryUp
            sleep(POLL_S)


def thaw(status: dict[str, PartStatus], names: Sequence[str]) -> None:
    """Let frozen processes continue. Otherwise they would not react to the signal that stops them."""
    for name in names:
        for process in tree(status[name].pid):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
