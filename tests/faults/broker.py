"""What can happen to the broker of a demo."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from local import ports, view_counts
from tests.conftest import Demo
from tests.waiting import until


def stopped(pid: int) -> bool:
    """Whether every thread of a process has stopped."""
    states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    return set(states) <= {"T"}


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    # On a busy machine its threads go on for a moment: RabbitMQ once confirmed twenty views after the signal.
    until(lambda: stopped(pid), what="all threads to have stopped", every_s=0.005)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def configured(demo: Demo, lines: str, file: str = "rabbitmq.conf") -> Iterator[None]:
    """The broker with more lines in a file of its configuration; killed and started again before and after."""
    configuration = demo.state / "rabbitmq" / file
    usual = configuration.read_text() if configuration.exists() else None

    def restart_with(text: str | None) -> None:
        if text is None:
            configuration.unlink()
        else:
            configuration.write_text(text)
        os.kill(demo.status()["broker"]["pid"], signal.SIGKILL)
        until(lambda: not view_counts.connected_processes(demo.url), 10, what="the app to notice")

    restart_with(f"{usual or ''}\n{lines}\n")
    until(
        lambda: ports.is_listening(urlsplit(demo.status()["broker"]["url"]).port or 0), 40, what="the broker to start"
    )
    try:
        yield
    finally:
        restart_with(usual)


def out_of_memory(demo: Demo) -> AbstractContextManager[None]:
    """The broker's memory alarm: it takes connections, and reads nothing more from those that publish."""
    return configured(demo, "vm_memory_high_watermark.absolute = 1MB")


def impatient(demo: Demo, seconds: int) -> AbstractContextManager[None]:
    """A broker before 4.3 whose `consumer_timeout` is so many seconds, and which checks it each second."""
    settings = f"[{{rabbit, [{{consumer_timeout, {seconds * 1000}}}, {{channel_tick_interval, 1000}}]}}]."
    return configured(demo, settings, file="none.config")
