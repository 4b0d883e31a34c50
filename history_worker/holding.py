"""Holds a message while PostgreSQL is away, and tries again until its events are committed."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

import structlog
from celery.exceptions import Reject
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from history_worker import stopping
from history_worker.database import is_outage

log = structlog.get_logger(__name__)

#: Pause between attempts while PostgreSQL is away: short at first (a restart takes a second), never so long that its
#: return goes unnoticed; random, so that workers do not come back all at once. Together with the longest attempt to
#: connect it stays below 5 s.
BACKOFF_S = {"multiplier": 0.1, "max": 2}
#: How often a pause looks whether the worker is to stop.
LOOK_EVERY_S = 0.1
#: For how long a statement that is under way may go on when the worker is to stop. One that PostgreSQL works on takes
#: milliseconds; and a supervisor kills what takes too long.
FINISH_S = 1.0

T = TypeVar("T")


class Sight:
    """What a process knows about PostgreSQL, so that each change is logged once and not for every message."""

    def __init__(self) -> None:
        self._away_since: float | None = None

    def away(self, error: BaseException | None) -> None:
        if self._away_since is None:
            self._away_since = monotonic()
            log.warning("PostgreSQL is away; holding the message", reason=str(error).splitlines()[0])

    def back(self) -> None:
        if self._away_since is not None:
            log.info("PostgreSQL is back", away_s=round(monotonic() - self._away_since, 1))
            self._away_since = None


SIGHT = Sight()


def hold(write: Callable[[], T]) -> T:
    """The result of `write`, once PostgreSQL takes it. Raises what is no outage.

    Raises celery.exceptions.Reject when the worker is asked to stop meanwhile: the message then goes back to its queue.
    """
    try:
        result = Retrying(
            retry=retry_if_exception(is_outage),
            wait=wait_random_exponential(**BACKOFF_S),
            before_sleep=_say_away,
            sleep=_pause,
            reraise=True,
        )(write)
    except Reject:
        raise
    except Exception:
        SIGHT.back()  # it answered
        raise
    SIGHT.back()
    return result


def hurry(waited_s: float) -> bool:
    """Whether a statement that has waited so long for its answer is to be given up, since the worker stops."""
    return min(waited_s, stopping.asked_for_s()) > FINISH_S


def _say_away(state: RetryCallState) -> None:
    SIGHT.away(state.outcome.exception() if state.outcome else None)


def _pause(seconds: float) -> None:
    until = monotonic() + seconds
    while not stopping.asked():
        left = until - monotonic()
        if left <= 0:
            return
        sleep(min(left, LOOK_EVERY_S))
    raise Reject("the worker stops while PostgreSQL is away", requeue=True)
