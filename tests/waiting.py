"""Waiting with a deadline: the only way a test waits."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

T = TypeVar("T")


def until(condition: Callable[[], T], timeout_s: float = 10, *, what: str, every_s: float = 0.02) -> T:
    """The condition's value once it is true. Fails after `timeout_s`, saying what was waited for."""
    deadline = monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s for {what}; last seen: {value!r}")
        sleep(every_s)
