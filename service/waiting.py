"""Waits with a deadline: until a condition is true, or until a count reaches a number."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

T = TypeVar("T")

#: Seconds between two checks of a condition.
POLL_INTERVAL_S = 0.1


def wait_until(condition: Callable[[], T], timeout_s: float, *, poll_interval_s: float = POLL_INTERVAL_S) -> T:
    """Call `condition` until it returns a true value, and return that. After the deadline, return its last value.

        if not wait_until(lambda: is_listening(port), timeout_s=10):
            raise PartFailed("it did not start")

    Whatever `condition` raises ends the wait.
    """
    deadline = monotonic() + timeout_s
    while not (value := condition()) and monotonic() < deadline:
        sleep(poll_interval_s)
    return value


def wait_for_count(
    count: Callable[[], int], wanted: int, stall_timeout_s: float, *, poll_interval_s: float = POLL_INTERVAL_S
) -> int:
    """Call `count` until it returns `wanted` or more, and return that, however long it rises.

    If the count has not risen for `stall_timeout_s`, return the highest one. Whatever `count` raises ends the wait.
    """
    highest, deadline = -1, 0.0
    while (found := count()) < wanted:
        if found > highest:
            highest, deadline = found, monotonic() + stall_timeout_s
        if monotonic() >= deadline:
            return highest
        sleep(poll_interval_s)
    return found
