"""A Celery app like `history_worker.app`. In addition, events of two kinds of viewers kill the worker that writes them.

    celery -A proof.chaos.killing worker ...

They simulate faults that no code of ours can catch: a bug in a C library, or the machine's out-of-memory killer.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from history_worker.app import app
from local import deadly_views
from proof.chaos.ledger import KILLS_CHILD, KILLS_PARENT
from view_events.event import ViewEvent

__all__ = ["app"]


def kill_worker(events: Sequence[ViewEvent]) -> None:
    """Kill the process that is about to write a killer, or its whole worker."""
    for event in events:
        if event.viewer_id.startswith(KILLS_PARENT):
            # Kill this process, too: an orphan continues and commits.
            os.kill(os.getppid(), signal.SIGKILL)
        if event.viewer_id.startswith((KILLS_CHILD, KILLS_PARENT)):
            os.kill(os.getpid(), signal.SIGKILL)


deadly_views.install(kill_worker)
