"""In a demo only: a viewer whose views kill the process that writes them, for `flixtrail poison --kills-worker`.

It simulates faults that no code of ours can catch: a bug in a C library, or the machine's out-of-memory killer. Only
local/worker_launcher.py and proof/chaos/killing.py import it, so no worker outside a demo has it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from local.deadly_viewer import KILLS_ITS_WORKER
from view_events.event import ViewEvent


def kill_for_deadly_viewer(events: Sequence[ViewEvent]) -> None:
    """Kill this process if one of the events is of the deadly viewer."""
    if any(event.viewer_id == KILLS_ITS_WORKER for event in events):
        os.kill(os.getpid(), signal.SIGKILL)


def deadly(
    write: Callable[..., int], kill: Callable[[Sequence[ViewEvent]], None] = kill_for_deadly_viewer
) -> Callable[..., int]:
    """Wrap a writer so that `kill` gets each batch before it is written. Nothing of a deadly batch is written."""

    def kill_or_write(engine: Any, events: Sequence[ViewEvent], *more: Any, **named: Any) -> int:
        kill(events)
        return write(engine, events, *more, **named)

    return kill_or_write


def install(kill: Callable[[Sequence[ViewEvent]], None] = kill_for_deadly_viewer) -> None:
    """Install the wrapper. Call it before the pool is made."""
    from history_worker import slow_events

    slow_events.write = deadly(slow_events.write, kill)  # type: ignore[attr-defined]
