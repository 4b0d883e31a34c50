"""How the demo stops: a ladder, a line a step. First nothing new is accepted, then what was accepted is written."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import sleep

import psutil

from flixtrail.local import services
from flixtrail.local.part import PartStatus
from flixtrail.local.supervisor import POLL_S, Supervisor, SupervisorAway, tree
from flixtrail.local.telling import Teller

#: With no part left the supervisor needs half a second.
SUPERVISOR_STOP_S = 3


class HurryUp(Exception):
    """Ctrl-C for the second time. Raised by a step, ends the ladder: the rest is killed."""


class Ladder:
    """Stops all parts and the supervisor. `hurry` says whether somebody has lost patience."""

    def __init__(self, supervisor: Supervisor, teller: Teller, hurry: Callable[[], bool]) -> None:
        self._supervisor = supervisor
        self._teller = teller
        self._hurry = hurry

    def climb_down(self, supervisord: subprocess.Popen[bytes]) -> None:
        """Returns when supervisord is gone. Where that went wrong, parts may be left: `leftovers` ends them."""
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
        workers = [name for name in status if name.startswith(services.WORKER)]
        thaw(status, workers)
        self._stop("the streaming app: nothing new is accepted", [services.WEB])
        self._stop("the history workers: what they hold is written or goes back", workers)
        self._stop("the history API, Flower", [services.HISTORY_API, services.FLOWER])
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
        # The supervisor itself kills what takes longer than its `stop_wait_s`.
        while any(self._supervisor.status()[name].pid for name in running):
            if self._hurry():
                raise HurryUp
            sleep(POLL_S)


def thaw(status: dict[str, PartStatus], names: Sequence[str]) -> None:
    """Let frozen processes go on: they cannot hear otherwise that they shall stop."""
    for name in names:
        for process in tree(status[name].pid):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
