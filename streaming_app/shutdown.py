"""Shuts a web process down: within a fixed time after a signal, and by itself if the main process is gone.

Granian waits until every answer has been read, but a viewer who has paused reads nothing. So the shutdown has a
deadline. The process accepts no new connections, running requests get GRACE_S, then the publisher sends what it still
has, and the process exits.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from typing import TypeVarTuple

import structlog
from granian import loops

from service.listening import ORPHAN_CHECK_S

log = structlog.get_logger(__name__)

#: Seconds for running requests. Requests that record take at most 1.25 s (recording/deadlines.py).
GRACE_S = 2.5
#: Seconds after which the main process kills a process that is still running: GRACE_S, LAST_WORDS_S and a reserve.
KILL_AFTER_S = 5
LAST_WORDS_S = 1.0

_told_to_leave = threading.Event()

Ts = TypeVarTuple("Ts")


class Loop(asyncio.SelectorEventLoop):
    """An event loop that notices when granian gets a signal. Granian adds its signal handler here before the app
    starts.
    """

    def add_signal_handler(self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        def leave() -> None:
            _told_to_leave.set()
            callback(*args)

        super().add_signal_handler(sig, leave)


@loops.register("asyncio")
def _loop() -> asyncio.AbstractEventLoop:
    loop = Loop()
    asyncio.set_event_loop(loop)
    return loop


def forget_handlers() -> None:
    """Reset the signal handlers in a new process. The handlers of its parent do not work there, and a signal must end
    it.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def watch(last_words: Callable[[float], object]) -> None:
    """Start the threads that end this process in time. `last_words` gets the number of seconds that it may take."""
    # Daemon threads: if the process ends by itself, it does not wait for them.
    threading.Thread(target=_leave_in_time, args=(last_words,), name="leaving", daemon=True).start()
    threading.Thread(target=_leave_when_orphaned, args=(os.getppid(),), name="orphaned", daemon=True).start()


def _leave_in_time(last_words: Callable[[float], object]) -> None:
    _told_to_leave.wait()
    threading.Event().wait(GRACE_S)
    log.info("leaving with viewers who have not read to the end")
    try:
        last_words(LAST_WORDS_S)
    finally:
        os._exit(0)


def _leave_when_orphaned(parent: int) -> None:
    while not _told_to_leave.wait(ORPHAN_CHECK_S):
        if os.getppid() != parent:
            log.warning("the main process is gone, leaving")
            os.kill(os.getpid(), signal.SIGTERM)
            # Granian's handler runs on the event loop. If the loop is stuck, the deadline must start all the same.
            _told_to_leave.set()
