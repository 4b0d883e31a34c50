"""Calculates how long views are kept: months, the ids that begin them, and which are past. The caller passes the time.

An id is a UUIDv7: its first 48 bits are its time in milliseconds. So a span of time is a range of ids. The table
`view_events` is partitioned by its own key, so the key is unique over all partitions.

    |<------------------------- RETENTION ------------------------->|<- GRACE ->|<- CLOCKS ->|
   now                        the streaming app refuses older ids --'           |            |
                                         a worker dead-letters older ids -------'            |
                                           a partition with nothing younger is detached -----'
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from view_events.event import RETENTION, first_id

#: How long an accepted view may wait before it is written: in an outbox, in the queue, or as a dead letter until
#: somebody redrives it. An event at the edge of RETENTION (an import) has this time, too.
GRACE = timedelta(days=30)
#: A margin for clocks. A worker compares ids with its own clock, and may keep a batch for HOLD_S (20 minutes) after
#: that. The clocks of hosts differ by less than this margin.
CLOCKS = timedelta(days=1)
#: How many months are made ahead. So a machine that is started once a year has its partitions.
MONTHS_AHEAD = 12


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A calendar month in UTC: one partition."""

    year: int
    month: int

    @classmethod
    def of(cls, at: datetime) -> Month:
        utc = at.astimezone(UTC)
        return cls(utc.year, utc.month)

    def plus(self, months: int) -> Month:
        years, month = divmod(self.month - 1 + months, 12)
        return Month(self.year + years, month + 1)

    @property
    def begin(self) -> UUID:
        """The smallest id of the month."""
        return first_id(datetime(self.year, self.month, 1, tzinfo=UTC))

    @property
    def end(self) -> UUID:
        """The smallest id after the month."""
        return self.plus(1).begin

    @property
    def partition(self) -> str:
        return f"view_events_{self.year:04}_{self.month:02}"


@dataclass(frozen=True, slots=True)
class Range:
    """The ids of a partition: `begin` is included, `end` is not. None: no bound on that side."""

    begin: UUID | None
    end: UUID | None

    def overlaps(self, month: Month) -> bool:
        return (self.end is None or self.end > month.begin) and (self.begin is None or self.begin < month.end)


def oldest_taken(now: datetime) -> UUID:
    """Return the smallest id that a worker accepts.

    The row of a smaller id may be gone, so it could be counted twice.
    """
    return first_id(now - RETENTION - GRACE)


def oldest_kept(now: datetime) -> datetime:
    """Return the time before which views may be detached: no worker accepts their ids any more."""
    return now - RETENTION - GRACE - CLOCKS


def missing(existing: Iterable[Range], now: datetime, months_ahead: int = MONTHS_AHEAD) -> list[Month]:
    """Return the months that should have a partition and have none, oldest first.

    They begin with the oldest month that is kept, not with the current one: views that came while a partition was
    missing are in the default partition.
    """
    ranges = tuple(existing)
    last = Month.of(now).plus(months_ahead)
    return [month for month in _months(Month.of(oldest_kept(now)), last) if not any(r.overlaps(month) for r in ranges)]


def is_past(ids: Range, now: datetime) -> bool:
    """Return whether every id in the range is too old to keep."""
    return ids.end is not None and ids.end <= first_id(oldest_kept(now))


def months_ahead(existing: Iterable[Range], now: datetime) -> int:
    """Return how many whole months after this one have a partition, without a gap."""
    ranges = tuple(existing)
    month = Month.of(now)
    ahead = 0
    while any(r.end is not None and r.overlaps(month.plus(ahead + 1)) for r in ranges):
        ahead += 1
    return ahead


def _months(first: Month, last: Month) -> Iterator[Month]:
    month = first
    while month <= last:
        yield month
        month = month.plus(1)
