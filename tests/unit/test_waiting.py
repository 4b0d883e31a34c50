"""A wait ends when its condition is true, or at its deadline; a count may take longer, as long as it rises."""

from __future__ import annotations

from itertools import chain, repeat

import pytest

from service.waiting import wait_for_count, wait_until


def test_the_true_value_is_returned() -> None:
    values = iter(["", None, "found"])
    assert wait_until(lambda: next(values), 10, poll_interval_s=0) == "found"


def test_after_the_deadline_the_last_false_value_is_returned() -> None:
    assert wait_until(lambda: "", 0.02, poll_interval_s=0.001) == ""


def test_what_the_condition_raises_ends_the_wait() -> None:
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: 1 // 0, 10)


def test_a_count_that_rises_may_take_longer_than_its_timeout() -> None:
    counts = iter(range(100))
    assert wait_for_count(lambda: next(counts), 99, 0.02, poll_interval_s=0.001) == 99


def test_a_count_that_stalls_is_returned() -> None:
    counts = chain(range(5), repeat(4))
    assert wait_for_count(lambda: next(counts), 99, 0.02, poll_interval_s=0.001) == 4
