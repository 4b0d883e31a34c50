"""Holds a message while PostgreSQL is away, and tries again until its events are committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from history_worker.database import is_outage

log = structlog.get_logger(__name__)

#: Pause between attempts while PostgreSQL is away: short at first (a restart takes a second), never so long that its
#: return goes unnoticed; random, so that workers do not come back all at once.
BACKOFF_S = {"multiplier": 0.1, "max": 2}

T = TypeVar("T")


def hold(write: Callable[[], T]) -> T:
    """The result of `write`, once PostgreSQL takes it. Raises what is no outage."""
    return Retrying(
        retry=retry_if_exception(is_outage),
        wait=wait_random_exponential(**BACKOFF_S),
        before_sleep=_say_away,
        reraise=True,
    )(write)


def _say_away(state: RetryCallState) -> None:
    if state.attempt_number == 1:
        reason = state.outcome.exception() if state.outcome else None
        log.warning("PostgreSQL is away; holding the message", reason=str(reason).splitlines()[0])
