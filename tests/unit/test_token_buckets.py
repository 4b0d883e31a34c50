"""Buckets that several processes share: how fast they fill, and what a kill, a full table or a restart does to them."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import pytest

from streaming_app.recording import token_buckets
from streaming_app.recording.token_buckets import PLACES, ROWS, Bucket, BucketTable, Rate, _number

RATE = Rate(per_s=10, burst=300)
ALICE = Bucket("alice", RATE)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(token_buckets, "monotonic", clock)
    return clock


def test_a_burst_is_given_at_once_and_more_as_time_goes_by(clock: Clock) -> None:
    table = BucketTable()
    assert table.take(299, ALICE) == 0
    assert table.take(2, ALICE) == pytest.approx(0.1)
    assert table.take(1, ALICE) == 0
    clock.now += 1
    assert table.take(10, ALICE) == 0
    assert table.take(10, ALICE) == pytest.approx(1)
    clock.now += 1_000
    assert table.take(300, ALICE) == 0
    assert table.take(1, ALICE) > 0


def test_all_buckets_give_or_none_does(clock: Clock) -> None:
    table, crowd = BucketTable(), Bucket("crowd", Rate(1, 5))
    assert table.take(5, ALICE, crowd) == 0
    assert table.take(1, ALICE, crowd) == pytest.approx(1)
    assert table.take(295, ALICE) == 0, "alice lost what the crowd did not get"
    assert clock.now


def test_a_full_bucket_gives_to_one_who_wants_more_than_it_holds(clock: Clock) -> None:
    table = BucketTable()
    assert table.take(1_000, ALICE) == 0
    clock.now += 99
    assert table.take(1_000, ALICE) == pytest.approx(1)
    clock.now += 1.001
    assert table.take(1_000, ALICE) == 0


def test_no_limit_takes_no_place() -> None:
    table = BucketTable()
    for _ in range(3):
        assert table.take(1_000_000, Bucket("alice", Rate(0, 0))) == 0


def test_processes_and_replicas_count_together(tmp_path: Path) -> None:
    slow = Bucket("alice", Rate(0.001, 4))
    inherited, by_file = BucketTable(), BucketTable(tmp_path / "limits")
    for table in (inherited, by_file):
        child = os.fork()
        if child == 0:
            os._exit(0 if table.take(3, slow) == 0 else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert table.take(2, slow) > 0
    assert BucketTable(tmp_path / "limits").take(2, slow) > 0
    assert (tmp_path / "limits").stat().st_mode & 0o777 == 0o600


def test_what_a_file_says_from_before_a_reboot_does_not_count(tmp_path: Path, clock: Clock) -> None:
    clock.now = 9_000_000
    assert BucketTable(tmp_path / "limits").take(300, ALICE) == 0
    clock.now = 5
    assert BucketTable(tmp_path / "limits").take(300, ALICE) == 0


def test_in_a_full_row_the_bucket_that_loses_least_makes_room(clock: Clock) -> None:
    table = BucketTable()
    # All of one row, and one more than it has places.
    names = (str(number) for number in range(100 * PLACES * ROWS))
    crowd = list(islice((name for name in names if _number(name) % ROWS == 0), PLACES + 1))
    for taken, name in enumerate(crowd, start=1):
        assert table.take(taken * 30, Bucket(name, RATE)) == 0
    assert table.take(290, Bucket(crowd[1], RATE)) > 0
    assert table.take(290, Bucket(crowd[-1], RATE)) > 0
    assert table.take(290, Bucket(crowd[0], RATE)) == 0, "it had taken least, and was forgotten"
    assert clock.now


@pytest.mark.usefixtures("clock")
def test_two_new_buckets_of_one_row_do_not_take_each_others_place() -> None:
    """One viewer in 8,192 is in the row of their own address."""
    row = _number("address 127.0.0.1") % ROWS
    viewer = next(f"viewer {number}" for number in range(10**6) if _number(f"viewer {number}") % ROWS == row)
    pair = [Bucket(key, Rate(per_s=0.001, burst=20)) for key in (viewer, "address 127.0.0.1")]
    table = BucketTable()
    assert [table.take(1, *pair) == 0 for _ in range(25)] == [True] * 20 + [False] * 5
    assert [table.take(1, pair[0]) == 0 for _ in range(2)] == [False, False]
