"""A demo as a user starts it: `flixtrail demo` in a process of its own, with its own state folder and port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from local import leftover_processes, view_counts
from local.errors import BrokerUnreachable
from local.running_demo import RunningDemo
from local.state import State
from streaming_app.access.auth import Tokens
from streaming_app.recording.outbox import waiting_in
from tests.waiting import until

ROOT = Path(__file__).parent.parent
#: Alone on two cores it takes five seconds; the tests may share them.
READY_S = 90
STOPPED_S = 30
#: What a newcomer's environment may be like: a proxy that nothing on this machine may be asked through, no locale, and
#: a folder in PATH that cannot be looked into.
HARD = {
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
    "LC_ALL": "POSIX",
    "PATH": f"/{'x' * 256}:{os.environ['PATH']}",
}
#: Characters that have a meaning to a shell, an ini file, a URL or RabbitMQ's configuration, or that latin-1 lacks.
HARD_NAME = "내 영상 🎬 100% 'a' \"b\" $c;#x"


def program() -> list[str]:
    """`flixtrail` as `make` installs it, or from the sources where it is not installed."""
    installed = Path(sys.executable).with_name("flixtrail")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "flixtrail"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Demo:
    """One running demo. `settings` are environment variables of `flixtrail demo`, `prefix` goes before the command."""

    def __init__(self, state: Path, settings: Mapping[str, str], prefix: Sequence[str] = ()) -> None:
        self.state = state
        self.port = int(settings.get("PORT") or free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = state.with_name(f"{state.name}.out")
        self._environment = environment(STATE=str(state), **settings) | {"PORT": str(self.port)}
        with self.output.open("ab") as output:
            self.began_at = output.tell()
            self.process = subprocess.Popen(
                [*prefix, *program(), "demo"],
                env=self._environment,
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    # -- its life --------------------------------------------------------------------------------------

    def said(self) -> str:
        """All that it has printed since it was started."""
        return self.output.read_bytes()[self.began_at :].decode(errors="replace")

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, f"the demo ended with {self.process.returncode}:\n{self.said()}"
            return f"ready: {self.url}\n" in self.said()

        try:
            until(ready, READY_S, what="the ready line", every_s=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()}") from None

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask it to stop, and see that nothing is left of it."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(STOPPED_S)
        except subprocess.TimeoutExpired:
            self.kill_everything()
            raise AssertionError(f"not stopped after {STOPPED_S} s:\n{self.said()}") from None
        left = self.processes()
        leftover_processes.end(left)
        assert not left, f"left behind: {left}\n{self.said()}"

    def processes(self) -> list[psutil.Process]:
        """Everything that belongs to it, apart from the program `flixtrail demo` itself."""
        return leftover_processes.processes(self.state, works_in=self.state / "postgres")

    def kill_everything(self) -> None:
        """As a machine does that loses its power, almost: kill -9 of every process."""
        self.process.kill()
        self.process.wait()
        leftover_processes.end(self.processes())

    # -- the command line ------------------------------------------------------------------------------

    def cli(self, *arguments: str, status: int = 0, timeout_s: float = 60) -> str:
        """What `flixtrail ARGUMENTS` prints. Fails unless it ends with that exit status."""
        done = subprocess.run(
            [*program(), *arguments],
            env=self._environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == status, f"{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    # -- what goes on in it, without a process a question --------------------------------------------------

    def running(self) -> RunningDemo:
        return RunningDemo(State(self.state))

    def status(self) -> dict[str, Any]:
        """As `flixtrail status --json`."""
        return self.running().processes()

    def token(self, viewer: str) -> str:
        return Tokens(self.running().document["secret_key"]).viewer(viewer)

    def ingest_token(self) -> str:
        return Tokens(self.running().document["secret_key"]).ingest()

    def outbox(self) -> int:
        """Events that wait in outboxes."""
        return waiting_in(self.state / "outbox")

    def broker_is_empty(self) -> bool:
        """Nothing waits and nothing is held. RabbitMQ's figures may be a second old."""
        try:
            figures = self.running().queue().figures()
        except BrokerUnreachable:
            return False
        return figures.ready == figures.unacked == 0

    def redelivered(self) -> int:
        """Batches written so far that carried RabbitMQ's redelivered flag: the workers log it."""
        logs = (self.state / "log").glob("history-worker-*.log")
        return sum(log.read_text(errors="replace").count("redelivered=True") for log in logs)

    def settled(self) -> None:
        """Wait until every part runs again, every worker consumes, and nothing is under way."""
        until(self._is_settled, 60, what="the demo to settle", every_s=0.1)

    def _is_settled(self) -> bool:
        running = self.running()
        workers = [worker for worker in running.workers() if worker.state == "running"]
        try:
            enough = running.queue().consumers() >= len(workers) > 0
        except BrokerUnreachable:
            return False
        parts_run = all(part.running or part.stopped for part in running.status().values())
        web = running.processes()["web"]["pids"][1:]
        ready = 0 < len(web) == view_counts.connected_processes(self.url)
        return parts_run and enough and ready and not self.outbox() and self.broker_is_empty()


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with these settings, and without those of the person who runs the tests."""
    ours = {"PORT", "WORKERS", "BROKER", "VIDEOS", "STATE", "AMQP_URL", "DATABASE_URL", "HOST", "CACHE", "SECRET_KEY"}
    ours |= {"OUTBOX", "OUTBOX_BYTES"}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    return {**inherited, **HARD, "PYTHONPATH": str(ROOT), **settings}
