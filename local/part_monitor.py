"""Watches the parts of a running demo: reports which part died and was restarted, and retries parts
that keep failing.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from local import leftover_processes
from local.errors import SupervisorUnreachable
from local.part import PartStatus
from local.supervisor import Supervisor
from local.terminal_output import TerminalOutput

#: Seconds between two attempts to start a part that died too often at its start.
RETRY_S = 10


class PartMonitor:
    """Compares the parts with their state a moment ago. `launch_supervisor` starts a new supervisor."""

    def __init__(self, supervisor: Supervisor, output: TerminalOutput, launch_supervisor: Callable[[], None]) -> None:
        self._supervisor = supervisor
        self._output = output
        self._launch_supervisor = launch_supervisor
        self._last_status = supervisor.status()
        self._retry_at: dict[str, float] = {}

    def check(self, stopping: Callable[[], bool]) -> None:
        """Report what has changed. If the supervisor is gone, starts a new one, unless the demo is being stopped."""
        try:
            now = self._supervisor.status()
        except SupervisorUnreachable:
            if not stopping():
                self._restart_supervisor()
            return
        for name, part in now.items():
            self._compare(name, self._last_status.get(name), part)

    def _compare(self, name: str, before: PartStatus | None, now: PartStatus) -> None:
        if now.failed:
            self._retry_start(name, is_new=before is None or not before.failed)
        elif before is None:
            self._output.print(f"{name} was added")
        elif now.stopped and not before.stopped:
            self._output.print(f"{name} was stopped")
        elif before.stopped and now.pid:
            self._output.print(f"{name} was started")
        elif now.pid and before.pid and now.pid != before.pid:
            self._output.print(f"[yellow]{name} died (process {before.pid}) and runs again (process {now.pid})[/]")
        elif before.pid and not now.pid and not now.stopped:
            return  # not restarted yet: remember the process that died
        self._last_status[name] = now

    def _retry_start(self, name: str, *, is_new: bool) -> None:
        if is_new:
            self._output.print_plain(self._supervisor.state.end_of_log(name, "keeps failing at its start"))
        if monotonic() >= self._retry_at.get(name, 0):
            self._retry_at[name] = monotonic() + RETRY_S
            self._supervisor.start(name)

    def _restart_supervisor(self) -> None:
        self._output.print("[yellow]the supervisor died: starting every part again[/]")
        leftover_processes.end_all(self._supervisor.state.folder)
        stopped = {name for name, part in self._last_status.items() if part.stopped}
        self._launch_supervisor()
        for name in self._supervisor.status():
            if name not in stopped:
                self._supervisor.start(name)
        self._last_status = self._supervisor.status()
