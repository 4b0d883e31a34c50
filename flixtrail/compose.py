"""Runs `docker compose` for the command line, in the folder with docker-compose.yml."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from local.errors import DemoError

#: Seconds after which a command counts as hanging. A dump of a large history has no such limit.
TIMEOUT_S = 120


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP (a terminal that closes) end the program like Ctrl-C. So services that were stopped are
    started again.
    """

    def exit_program(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, exit_program) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ComposeFailed(DemoError):
    """A `docker compose` command failed. The message has the end of its output."""


class Compose:
    """Runs `docker compose` commands. All methods raise ComposeFailed."""

    def __init__(self, folder: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._environment = environment

    def __call__(self, *arguments: str, data: bytes | None = None, timeout_s: float | None = TIMEOUT_S) -> str:
        """Run a command and return its output. `data` is its input."""
        return self._run(arguments, subprocess.PIPE, {"input": data or b""}, timeout_s).decode(errors="replace")

    def save(self, file: Path, *arguments: str) -> None:
        """Write a command's output to a file, completely or not at all. There is no time limit."""
        unfinished = file.with_name(f"{file.name}.unfinished")
        try:
            with unfinished.open("wb") as to:
                self._run(arguments, to, {"stdin": subprocess.DEVNULL}, None)
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)

    def feed(self, file: Path, *arguments: str) -> str:
        """Run a command with a file as its input. There is no time limit."""
        with file.open("rb") as stdin:
            return self._run(arguments, subprocess.PIPE, {"stdin": stdin}, None).decode(errors="replace")

    def _run(
        self, arguments: tuple[str, ...], stdout: int | IO[bytes], stdin: Mapping[str, object], timeout_s: float | None
    ) -> bytes:
        command = ["docker", "compose", "--ansi", "never", *arguments]
        try:
            done = subprocess.run(  # type: ignore[call-overload]
                command,
                stdout=stdout,
                stderr=subprocess.PIPE,
                cwd=self._folder,
                env=self._environment,
                timeout=timeout_s,
                check=False,
                **stdin,
            )
        except FileNotFoundError:
            raise ComposeFailed("docker is not installed here; this is about the stack of docker-compose.yml") from None
        except subprocess.TimeoutExpired:
            raise ComposeFailed(f"{' '.join(command)} did not end within {timeout_s} s") from None
        if done.returncode:
            output = done.stderr.decode(errors="replace").strip().splitlines()[-8:]
            raise ComposeFailed("\n".join([f"{' '.join(command[:6])} … failed:", *(f"  | {line}" for line in output)]))
        return bytes(done.stdout or b"")
