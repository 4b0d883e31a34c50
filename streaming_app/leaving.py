"""How a web process ends: when it is told to, in time; and by itself when the main process is gone.

Granian waits for every answer to be read to its end, and a viewer who has paused reads nothing. So: no new connections,
what is under way may end within GRACE_S, then the publisher sends what it holds, and the process is gone.
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

log = structlog.get_logger(__name__)

#: Time for requests that are under way. Those that record take 0.25 s at the most; the rest of it is for bytes.
GRACE_S = 2.5
#: When the main process kills what has still not left: GRACE_S, then the publisher's last second, and some more.
KILL_AFTER_S = 5
LAST_WORDS_S = 1.0
#: How often a process looks whether its parent lives. Until it has noticed, it keeps the port from its successor.
ORPHAN_CHECK_S = 0.25

_told_to_leave = threading.Event()

Ts = TypeVarTuple("Ts")


class Loop(asyncio.SelectorEventLoop):
    """Notices that granian was told to leave. Granian has its handler added here before the application starts."""

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
    """Let a new process die of a signal that comes before its own handlers do: its parent's mean nothing in it."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def watch(last_words: Callable[[float], object]) -> None:
    """Start the thread that ends this process in time; `last_words` gets the seconds it may take."""
    # Daemon threads: a process that gets to its end by itself does not wait for them.
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
            # Granian's handler runs on the event loop; should that be stuck, time runs all the same.
            _told_to_leave.set()
