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


def until_equal(read: Callable[[], T], wanted: T, timeout_s: float = 10, *, what: str) -> None:
    """Wait until `read` returns this value. Fails after `timeout_s`, with what it returned last."""
    last: list[T] = []

    def equals() -> bool:
        last[:] = [read()]
        return last[0] == wanted

    try:
        until(equals, timeout_s, what=what)
    except AssertionError:
        raise AssertionError(f"waited {timeout_s} s for {what}: wanted {wanted!r}; last seen: {last[0]!r}") from None
