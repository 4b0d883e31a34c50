"""What can happen to the broker of a demo."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from flixtrail.local import counts, ports
from tests.conftest import Demo
from tests.waiting import until


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def out_of_memory(demo: Demo) -> Iterator[None]:
    """The broker's memory alarm: it takes connections, and reads nothing more from those that publish."""
    configuration = demo.state / "rabbitmq" / "rabbitmq.conf"
    usual = configuration.read_text()

    def restart_with(text: str) -> None:
        configuration.write_text(text)
        os.kill(demo.status()["broker"]["pid"], signal.SIGKILL)
        until(lambda: not counts.connected_processes(demo.url), 10, what="the app to notice")

    restart_with(f"{usual}\nvm_memory_high_watermark.absolute = 1MB\n")
    until(lambda: ports.answers(urlsplit(demo.status()["broker"]["url"]).port or 0), 40, what="the broker to start")
    try:
        yield
    finally:
        restart_with(usual)
