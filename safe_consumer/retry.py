"""Retries a write until PostgreSQL commits it. Meanwhile the worker keeps the message unacknowledged.

The log names what is wrong: a lock that somebody keeps is not reported as an outage.

Only an error in the events themselves ends the retries. An unforeseen error (a table that a migration has not made yet,
a missing grant) must not dead-letter message after message. It is logged, and an operator fixes it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

import structlog
from celery.exceptions import Reject
from sqlalchemy.exc import DBAPIError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from safe_consumer import shutdown
from service import metrics
from service.database import TookTooLong, is_outage, is_refusal, sqlstate

log = structlog.get_logger(__name__)

#: The pause between attempts while PostgreSQL is away. It is short at first, because a restart takes a second. It stays
#: short enough to notice soon that PostgreSQL is back: with the longest attempt to connect it is below 5 s. It is
#: random, so that workers do not all come back at once.
BACKOFF_S = {"multiplier": 0.1, "max": 2}
#: Seconds between two checks, during a pause, whether the worker is asked to stop.
CHECK_EVERY_S = 0.1
#: When the worker is asked to stop, a running statement may go on for so many seconds. A working PostgreSQL needs
#: milliseconds, and a supervisor kills a worker that takes too long to stop.
FINISH_S = 1.0

T = TypeVar("T")

AWAY = "PostgreSQL is away"
CANNOT = "PostgreSQL cannot take it"
TOO_LONG = "a statement took too long"
#: Names of errors by the beginning of their SQLSTATE. PostgreSQL works, but something blocks this statement.
BLOCKED = {
    "55P03": "waited too long for a lock",
    "40P01": "a deadlock",
    "40": "another transaction was in the way",
    "57014": "somebody cancelled a statement",
}
#: PostgreSQL answers, but cannot do this now.
UNABLE = {
    "53100": "PostgreSQL has no room on its disk",
    "53200": "PostgreSQL has no memory left",
    "53300": "PostgreSQL has no connection left",
}


def describe(error: BaseException) -> str:
    """Return what is wrong, in words for the log."""
    state = sqlstate(error)
    if isinstance(error, TookTooLong):
        return TOO_LONG
    for beginning, words in (BLOCKED | UNABLE).items():
        if state is not None and state.startswith(beginning):
            return words
    return AWAY if is_outage(error) else CANNOT


def is_blocked(error: BaseException) -> bool:
    """Return whether PostgreSQL works and only this statement did not finish."""
    return describe(error) in (TOO_LONG, *BLOCKED.values())


class OutageLog:
    """Logs once, and not for every message, that this process cannot write to PostgreSQL, and that it can again."""

    def __init__(self) -> None:
        self._since: float | None = None
        #: Whether there was more than a blocked statement.
        self._down = False
        #: What was logged already. All outages count as one kind; unforeseen errors are told apart by their SQLSTATE.
        self._logged: set[tuple[str, str | None]] = set()

    def failed(self, error: BaseException) -> None:
        """Note an error of a write. Logs it, unless an error of its kind was logged since the last success."""
        if self._since is None:
            self._since = monotonic()
        what, state = describe(error), sqlstate(error)
        if not self._down and not is_blocked(error):
            self._down = True
            metrics.worker().database_up.set(0)
        known_as = (what, state if what == CANNOT else None)
        if known_as in self._logged:
            return
        self._logged.add(known_as)
        log_it = log.error if what == CANNOT else log.warning
        log_it(f"{what}; the message stays unacknowledged", reason=str(error).splitlines()[0], sqlstate=state)

    def succeeded(self) -> None:
        """Note that PostgreSQL answered. Logs it if there was an error before."""
        if self._since is None:
            return
        what = "PostgreSQL is back" if self._down else "nothing is in the way any more"
        log.info(what, away_s=round(monotonic() - self._since, 1))
        if self._down:
            metrics.worker().database_up.set(1)
        self._since, self._down = None, False
        self._logged.clear()


def blocked_label(error: BaseException) -> str:
    """Return the metric's label for what blocked a statement: one of `metrics.IN_THE_WAY`."""
    if isinstance(error, TookTooLong):
        return "too-slow"
    state = sqlstate(error) or ""
    labels = {"55P03": "lock", "57014": "cancelled"}
    return labels.get(state, "deadlock" if state == "40P01" else "conflict")


OUTAGE_LOG = OutageLog()


def until_committed(write: Callable[[], T], is_to_blame: Callable[[BaseException], bool] = lambda _error: False) -> T:
    """Return the result of `write`; retry until PostgreSQL accepts it.

    Raises errors that are not PostgreSQL's, errors about the values, and errors for which `is_to_blame` says that the
    written events cause them. Raises celery.exceptions.Reject if the worker is asked to stop meanwhile: the message is
    then requeued.
    """

    def is_to_be_tried_again(error: BaseException) -> bool:
        if is_blocked(error):
            metrics.worker().in_the_way.labels(blocked_label(error)).inc()
        return is_worth_waiting(error) and not is_to_blame(error)

    try:
        result = Retrying(
            retry=retry_if_exception(is_to_be_tried_again),
            wait=wait_random_exponential(**BACKOFF_S),
            before_sleep=_log_failure,
            sleep=_pause,
            reraise=True,
        )(write)
    except Reject:
        raise
    except Exception:
        OUTAGE_LOG.succeeded()  # PostgreSQL answered
        raise
    OUTAGE_LOG.succeeded()
    return result


def is_worth_waiting(error: BaseException) -> bool:
    """Return whether PostgreSQL may accept the same write later.

    True for its every error that is not about the values.
    """
    return isinstance(error, DBAPIError | TookTooLong) and not is_refusal(error)


def is_overdue(waited_s: float) -> bool:
    """Return whether to give up a statement that has waited so long, because the worker stops."""
    return min(waited_s, shutdown.asked_for_s()) > FINISH_S


def _log_failure(state: RetryCallState) -> None:
    if state.outcome and (error := state.outcome.exception()):
        OUTAGE_LOG.failed(error)


def _pause(seconds: float) -> None:
    until = monotonic() + seconds
    while not shutdown.asked():
        left = until - monotonic()
        if left <= 0:
            return
        sleep(min(left, CHECK_EVERY_S))
    raise Reject("the worker stops while PostgreSQL does not take it", requeue=True)
