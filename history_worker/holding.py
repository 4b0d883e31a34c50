"""Holds a message while PostgreSQL is away or cannot take it, and tries again until its events are committed.

Only what is wrong with the events themselves is no reason to wait. What nobody foresaw (a table that a migration has
not made yet, a missing grant) must not dead-letter message after message: it is logged, and somebody mends it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

import structlog
from celery.exceptions import Reject
from sqlalchemy.exc import DBAPIError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from history_worker import stopping
from history_worker.database import is_outage, is_refusal, sqlstate
from view_events import metrics

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
        #: Outages are all alike; another trouble is told apart by its SQLSTATE.
        self._told: set[str | None] = set()

    def away(self, error: BaseException) -> None:
        if self._away_since is None:
            self._away_since = monotonic()
            metrics.worker().database_up.set(0)
        outage, state = is_outage(error), sqlstate(error)
        trouble = "outage" if outage else state
        if trouble in self._told:
            return
        self._told.add(trouble)
        reason = str(error).splitlines()[0]
        if outage:
            log.warning("PostgreSQL is away; holding the message", reason=reason, sqlstate=state)
        else:
            log.error("PostgreSQL cannot take it; holding the message", reason=reason, sqlstate=state)

    def back(self) -> None:
        if self._away_since is not None:
            log.info("PostgreSQL is back", away_s=round(monotonic() - self._away_since, 1))
            metrics.worker().database_up.set(1)
            self._away_since = None
            self._told.clear()


SIGHT = Sight()


def hold(write: Callable[[], T]) -> T:
    """The result of `write`, once PostgreSQL takes it. Raises what is no error of PostgreSQL, and what it refuses.

    Raises celery.exceptions.Reject when the worker is asked to stop meanwhile: the message then goes back to its queue.
    """
    try:
        result = Retrying(
            retry=retry_if_exception(is_worth_waiting),
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


def is_worth_waiting(error: BaseException) -> bool:
    """Whether PostgreSQL may take the same later: whatever it is, unless the values are to blame."""
    return isinstance(error, DBAPIError) and not is_refusal(error)


def hurry(waited_s: float) -> bool:
    """Whether a statement that has waited so long for its answer is to be given up, since the worker stops."""
    return min(waited_s, stopping.asked_for_s()) > FINISH_S


def _say_away(state: RetryCallState) -> None:
    if state.outcome and (error := state.outcome.exception()):
        SIGHT.away(error)


def _pause(seconds: float) -> None:
    until = monotonic() + seconds
    while not stopping.asked():
        left = until - monotonic()
        if left <= 0:
            return
        sleep(min(left, LOOK_EVERY_S))
    raise Reject("the worker stops while PostgreSQL is away", requeue=True)
