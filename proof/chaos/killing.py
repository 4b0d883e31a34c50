"""A Celery app like `history_worker.app`, but for two kinds of viewers whose events kill the worker that writes them.

    celery -A proof.chaos.killing worker ...

They stand for what no code of ours can catch: a bug in a C library, the machine's out-of-memory killer.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from history_worker import tasks
from history_worker.app import app
from proof.chaos.ledger import KILLS_CHILD, KILLS_PARENT
from view_events.event import ViewEvent

__all__ = ["app"]


def deadly(write: Callable[..., int]) -> Callable[..., int]:
    """The same writer; it does not survive a batch with a killer in it, and nothing of that batch is written."""

    def kill_or_write(engine: Any, events: Sequence[ViewEvent], *more: Any, **named: Any) -> int:
        for event in events:
            if event.viewer_id.startswith(KILLS_PARENT):
                # Itself, too: an orphan would go on, and commit.
                os.kill(os.getppid(), signal.SIGKILL)
            if event.viewer_id.startswith((KILLS_CHILD, KILLS_PARENT)):
                os.kill(os.getpid(), signal.SIGKILL)
        return write(engine, events, *more, **named)

    return kill_or_write


tasks.write = deadly(tasks.write)  # type: ignore[attr-defined]
