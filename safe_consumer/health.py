"""The worker's health: does its event loop turn, is it connected to the broker, and does it consume?

PostgreSQL does not count. A worker that waits for PostgreSQL does the right thing, and a restart would not help.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks

from service import metrics

#: Seconds between two notes that the event loop turns.
NOTE_EVERY_S = 1
#: After so many seconds without a note, the event loop counts as stuck. Longer than its wait for a broker's answer
#: (ANSWER_S in history_worker/app.py).
STUCK_S = 10


class Health:
    """Notes when the event loop last turned, and whether the worker is connected and consumes.

    The event loop writes it; the thread that answers /healthz reads it.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._turned_at = clock()
        self._connected = False
        self._paused = False

    def loop_turned(self) -> None:
        """Note that the event loop turns."""
        self._turned_at = self._clock()

    def connected(self, *, connected: bool) -> None:
        """Note that the connection to the broker was made or lost."""
        self.loop_turned()
        self._connected = connected
        self._set_gauge()

    def paused(self, *, paused: bool) -> None:
        """Note that the worker stopped consuming on purpose, or consumes again (safe_consumer/consumer_timeout.py)."""
        self._paused = paused
        self._set_gauge()

    def fault(self) -> str | None:
        """Return what is wrong, in a few words. None: nothing."""
        silent_s = self._clock() - self._turned_at
        if not self._connected:
            return "not connected to the broker"
        if silent_s > STUCK_S:
            return f"the event loop has not turned for {silent_s:.0f} s"
        return None

    def _set_gauge(self) -> None:
        with metrics.NO_FORK:
            metrics.worker().consuming.set(self._connected and not self._paused)


HEALTH = Health()


class HealthCheck(bootsteps.StartStopStep):  # type: ignore[misc]
    """Celery's step that notes every second, while the worker is connected, that the event loop turns."""

    requires = (Tasks,)

    def __init__(self, _consumer: Any, **_: Any) -> None:
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        HEALTH.connected(connected=True)
        self._timer = consumer.timer.call_repeatedly(NOTE_EVERY_S, HEALTH.loop_turned)

    def stop(self, consumer: Any) -> None:
        HEALTH.connected(connected=False)
        if self._timer is not None:
            consumer.timer.cancel(self._timer)
            self._timer = None
