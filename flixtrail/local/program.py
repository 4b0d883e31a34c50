"""A part (flixtrail/local/part.py) that is started and stopped without a supervisor: a benchmark's, a lesson's."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep

import psutil

from flixtrail.local import leftovers
from flixtrail.local.errors import PartFailed
from flixtrail.local.part import Part
from flixtrail.local.state import State

LOOK_EVERY_S = 0.02
#: Until a program is there: a machine with two cores that starts eight of them takes its time.
START_DEADLINE_S = 90
#: Where the sources are: `proof` is not installed, and its programs have to find it.
ROOT = Path(__file__).parents[2]


class Program:
    """A part and its process. What it says goes to a file of the state folder."""

    def __init__(self, part: Part, state: State) -> None:
        self.name = part.name
        self._part = part
        self._state = state
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Does nothing when it runs."""
        if self._process is not None:
            return
        marks = {leftovers.STATE_MARK: str(self._state.folder), leftovers.PART_MARK: self.name}
        with self._state.log(self.name).open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self._part.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal reaches this program only, which stops them in order
                cwd=ROOT,
                env={**self._part.environment, "PYTHONPATH": str(ROOT), **marks},
            )

    def stop(self) -> None:
        """Ask it, wait, and kill what is left of it."""
        process, self._process = self._process, None
        if process is None:
            return
        below = self._below(process.pid)
        process.send_signal(signal.Signals[f"SIG{self._part.stop_signal}"])
        try:
            process.wait(self._part.stop_wait_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        leftovers.end(child for child in below if child.is_running())

    def processes(self) -> list[psutil.Process]:
        """Its process and all below it."""
        if self._process is None:
            return []
        try:
            return [psutil.Process(self._process.pid), *self._below(self._process.pid)]
        except psutil.NoSuchProcess:
            return []

    def wait(self, there: Callable[[], bool], what: str) -> None:
        """Until it is there. Raises PartFailed with the end of the log when it is not, or the program ended."""
        deadline = monotonic() + START_DEADLINE_S
        while not there():
            if self._process is None or self._process.poll() is not None:
                raise PartFailed(self._state.end_of_log(self.name, f"ended before {what}"))
            if monotonic() > deadline:
                raise PartFailed(self._state.end_of_log(self.name, f"is up, but {what} took over {START_DEADLINE_S} s"))
            sleep(LOOK_EVERY_S)

    @staticmethod
    def _below(pid: int) -> list[psutil.Process]:
        try:
            return psutil.Process(pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
