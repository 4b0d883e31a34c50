"""Runs a part (local/part.py) without a supervisor: for a benchmark or a lesson."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

from local import leftover_processes
from local.errors import PartFailed
from local.part import Part
from local.processes import process_tree
from local.state import State
from service.waiting import wait_until

POLL_INTERVAL_S = 0.02
#: Seconds for a program to start: a machine with two cores that starts eight of them is slow.
START_TIMEOUT_S = 90
#: The folder of the sources. `proof` is not installed, and its programs must find it.
ROOT = Path(__file__).parents[1]


class Program:
    """A part and its process. Its output goes to a file of the state folder."""

    def __init__(self, part: Part, state: State) -> None:
        self.name = part.name
        self._part = part
        self._state = state
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, unless it runs already."""
        if self._process is not None:
            return
        marks = {leftover_processes.STATE_MARK: str(self._state.folder), leftover_processes.PART_MARK: self.name}
        with self._state.open_log(self.name) as log:
            self._process = subprocess.Popen(
                self._part.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches only the caller, which stops the programs in order
                cwd=ROOT,
                env={**self._part.environment, "PYTHONPATH": str(ROOT), **marks},
            )

    def stop(self) -> None:
        """Ask the process to stop, wait, and kill what is left."""
        process, self._process = self._process, None
        if process is None:
            return
        descendants = process_tree(process.pid)[1:]
        process.send_signal(signal.Signals[f"SIG{self._part.stop_signal}"])
        try:
            process.wait(self._part.stop_wait_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        leftover_processes.end(child for child in descendants if child.is_running())

    def processes(self) -> list[psutil.Process]:
        """Return its process and all descendants."""
        return process_tree(self._process.pid if self._process else None)

    def wait(self, is_ready: Callable[[], bool], what: str) -> None:
        """Wait until `is_ready` returns True. Raises PartFailed with the end of the log after the deadline, or if the
        program ended.
        """

        def checked() -> bool:
            if is_ready():
                return True
            if self._process is None or self._process.poll() is not None:
                raise PartFailed(self._state.end_of_log(self.name, f"ended before {what}"))
            return False

        if not wait_until(checked, START_TIMEOUT_S, poll_interval_s=POLL_INTERVAL_S):
            raise PartFailed(self._state.end_of_log(self.name, f"is up, but {what} took over {START_TIMEOUT_S} s"))
