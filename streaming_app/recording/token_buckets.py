"""Token buckets in shared memory: all web processes share them, and all replicas on one host if they use the same file.

A bucket is one number: the time at which it will be full again (the generic cell rate algorithm). The table has a fixed
size, so nobody can exhaust the memory. If a row is full, a new bucket replaces the one that is nearest to being full
again.

There is no lock. If two processes take from one bucket within the same microsecond, only one of the two may be counted.
In return, a process that is killed or frozen blocks nobody. See docs/decisions/0014-limits.md.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from time import monotonic

#: The table's size: 1 MiB has room for 65,536 buckets. A key belongs to one row, in one of its eight places.
BYTES = 1024 * 1024
BYTES_OF_BUCKET = 16
PLACES = 8
#: Shorter waits count as 0, because sums of floating-point numbers are not exact.
ROUNDING_S = 1e-6
#: A caller takes at most this many at once.
MOST_AT_ONCE = 1_000
ROWS = BYTES // BYTES_OF_BUCKET // PLACES


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate: `per_s` per second, and at most `burst` at once. If `per_s` is 0, there is no limit."""

    per_s: float
    burst: float

    @property
    def longest_s(self) -> float:
        """The longest time, in seconds, until a bucket is full again."""
        return max(self.burst, MOST_AT_ONCE) / self.per_s


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket in a table: `key` names it, `rate` says how fast it fills."""

    key: str
    rate: Rate


class BucketTable:
    """The shared table. Without a path: make it before the process forks, and the children share it. With a path, every
    process that opens the same file shares it.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open the table. Raises OSError if the file cannot be made or its disk is full."""
        self._memory = mmap.mmap(-1, BYTES) if path is None else _file(path)
        # Aligned eight-byte numbers, so each is written in one step. A bucket is its key, followed by its time.
        self._keys = memoryview(self._memory).cast("Q")
        self._times = memoryview(self._memory).cast("d")

    def take(self, count: float, *buckets: Bucket) -> float:
        """Take `count` from each of these buckets, or from none. Returns the seconds to wait, or 0 if it was taken."""
        now = monotonic()
        taken: list[tuple[int, float]] = []
        wait_s = 0.0
        for bucket in buckets:
            rate = bucket.rate
            if not rate.per_s:
                continue
            place = self._place(bucket.key, not_at=[place for place, _ in taken])
            full_at = self._times[place + 1]
            # A time that is impossible for this bucket was written before the machine restarted.
            if not now < full_at <= now + rate.longest_s:
                full_at = now
            # If `count` is larger than the bucket, a full bucket gives it anyway. Otherwise the caller would wait
            # forever.
            room_s = (rate.burst - count) / rate.per_s if count < rate.burst else 0.0
            wait_s = max(wait_s, full_at - now - room_s)
            taken.append((place, full_at + count / rate.per_s))
        if wait_s > ROUNDING_S:
            return wait_s
        for place, full_at in taken:
            self._times[place + 1] = full_at
        return 0.0

    def _place(self, key: str, not_at: list[int]) -> int:
        """Return the index of this key's bucket. A new key replaces another bucket, but none of those at `not_at`."""
        wanted = _number(key)
        first = wanted % ROWS * PLACES * 2
        if self._keys[first] == wanted:
            return first
        places = range(first, first + PLACES * 2, 2)
        for place in places:
            if self._keys[place] == wanted:
                return place
        place = min((place for place in places if place not in not_at), key=lambda place: self._times[place + 1])
        self._times[place + 1] = 0.0
        self._keys[place] = wanted
        return place


@lru_cache(4_096)
def _number(key: str) -> int:
    """Hash a key to a number. Never 0, because 0 marks an empty place."""
    return int.from_bytes(blake2b(key.encode("utf-8", "replace"), digest_size=8).digest()) or 1


def _file(path: Path) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Reserve the disk space now. If the disk were full later, touching a page would kill the process (SIGBUS).
        os.posix_fallocate(descriptor, 0, BYTES)
        return mmap.mmap(descriptor, BYTES)
    finally:
        os.close(descriptor)
