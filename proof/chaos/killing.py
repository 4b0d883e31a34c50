"""A Celery app like `history_worker.app`. In addition, events of two kinds of viewers kill the worker that writes them.

    celery -A proof.chaos.killing worker ...

They simulate faults that no code of ours can catch: a bug in a C library, or the machine's out-of-memory killer.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from history_worker import slow_events
from history_worker.app import app
from proof.chaos.ledger import KILLS_CHILD, KILLS_PARENT
from view_events.event import ViewEvent

__all__ = ["app"]


def deadly(write: Callable[..., int]) -> Callable[..., int]:
    """Wrap a writer so that a batch with a killer in it kills the process. Nothing of that batch is written."""

    def kill_or_write(engine: Any, events: Sequence[ViewEvent], *more: Any, **named: Any) -> int:
        for event in events:
            if event.viewer_id.startswith(KILLS_PARENT):
                # Kill this process, too: an orphan continues and commits.
                os.kill(os.getppid(), signal.SIGKILL)
            if event.viewer_id.startswith((KILLS_CHILD, KILLS_PARENT)):
                os.kill(os.getpid(), signal.SIGKILL)
        return write(engine, events, *more, **named)

    return kill_or_write


slow_events.write = deadly(slow_events.write)  # type: ignore[attr-defined]
