"""Finds the processes of a part, and sends signals to them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil


def process_tree(pid: int | None) -> list[psutil.Process]:
    """Return a part's process and all its descendants. Nothing if it is gone."""
    return _with_children(pid, recursive=True)


def web_processes(pid: int | None) -> list[psutil.Process]:
    """Return a web service's process and its request processes, without the processes that these start to read
    videos.
    """
    return _with_children(pid, recursive=False)


def signal_all(processes: Iterable[psutil.Process], number: int) -> None:
    """Send a signal to those that still live. A process that has the number of a dead one gets no signal."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _with_children(pid: int | None, *, recursive: bool) -> list[psutil.Process]:
    if pid is None:
        return []
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=recursive)]
    except psutil.NoSuchProcess:
        return []
