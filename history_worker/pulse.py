"""Whether the worker lives: its event loop turns, and it is connected to the broker. And whether it takes messages.

Not whether PostgreSQL is there: a worker that waits for it does what it should, and to start it again helps nobody.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks

from view_events import metrics

#: How often the event loop says that it turns.
BEAT_EVERY_S = 1
#: Silent for so long it is stuck. Longer than it waits for a broker's answer (ANSWER_S in history_worker/app.py).
STUCK_S = 10


class Pulse:
    """Written by the worker's event loop, read by the thread that answers /healthz."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._beat_at = clock()
        self._connected = False
        self._paused = False

    def beat(self) -> None:
        self._beat_at = self._clock()

    def connected(self, *, connected: bool) -> None:
        """The connection to the broker was made, or is gone."""
        self.beat()
        self._connected = connected
        self._tell()

    def paused(self, *, paused: bool) -> None:
        """The worker stopped consuming of its own accord, or does so again (history_worker/patience.py)."""
        self._paused = paused
        self._tell()

    def fault(self) -> str | None:
        """What is wrong, in a few words; None: nothing."""
        silent_s = self._clock() - self._beat_at
        if not self._connected:
            return "not connected to the broker"
        if silent_s > STUCK_S:
            return f"the event loop has not turned for {silent_s:.0f} s"
        return None

    def _tell(self) -> None:
        with metrics.NO_FORK:
            metrics.worker().consuming.set(self._connected and not self._paused)


PULSE = Pulse()


class Heart(bootsteps.StartStopStep):  # type: ignore[misc]
    """Beats while the worker is connected. (In learner mode there is no event loop; Consumer beats in its place.)"""

    requires = (Tasks,)

    def __init__(self, _consumer: Any, **_: Any) -> None:
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        PULSE.connected(connected=True)
        if consumer.hub:
            self._timer = consumer.timer.call_repeatedly(BEAT_EVERY_S, PULSE.beat)

    def stop(self, consumer: Any) -> None:
        PULSE.connected(connected=False)
        if self._timer is not None:
            consumer.timer.cancel(self._timer)
            self._timer = None
