"""How long views are kept: months as ranges of ids, which are missing, and which are past."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from history_worker.store.partitions import Partition
from history_worker.store.retention import (
    CLOCKS,
    MONTHS_AHEAD,
    Month,
    Range,
    is_past,
    missing,
    months_ahead,
    oldest_kept,
    oldest_taken,
)
from view_events.event import event_id_time, first_id, new_event_id

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LAST_RANDOM_BITS = (1 << 80) - 1

months = st.builds(Month, st.integers(1971, 9000), st.integers(1, 12))
moments = st.datetimes(datetime(1975, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (hypothesis adds it)


def ranges(*of: Month) -> list[Range]:
    return [Range(month.begin, month.end) for month in of]


@given(moments)
def test_every_moment_lies_in_its_month_and_in_no_other(at: datetime) -> None:
    month = Month.of(at)
    for event_id in (first_id(at), UUID(int=first_id(at).int | LAST_RANDOM_BITS)):
        assert month.begin <= event_id < month.end
    assert month.plus(-1).end == month.begin
    assert month.plus(1).begin == month.end


def test_a_new_id_lies_in_the_month_in_which_it_was_made() -> None:
    before = datetime.now(UTC)
    event_id = new_event_id()
    assert Month.of(before).begin <= event_id < Month.of(datetime.now(UTC)).end


@given(months, st.integers(-500, 500), st.integers(-500, 500))
def test_months_are_counted_over_the_years(month: Month, one: int, other: int) -> None:
    assert month.plus(one).plus(other) == month.plus(one + other)
    assert (month.plus(one) > month) == (one > 0)


def test_a_month_begins_at_midnight_utc_and_is_called_so() -> None:
    december = Month(2026, 12)
    assert event_id_time(december.begin) == datetime(2026, 12, 1, tzinfo=UTC)
    assert event_id_time(december.end) == datetime(2027, 1, 1, tzinfo=UTC)
    assert december.partition == "view_events_2026_12"
    assert december.begin.int & LAST_RANDOM_BITS == 0


@given(moments, st.integers(0, 36))
def test_what_is_missing_once_made_is_missing_no_more(now: datetime, ahead: int) -> None:
    wanted = missing([], now, ahead)
    assert missing(ranges(*wanted), now, ahead) == []
    assert wanted == sorted(set(wanted))
    assert wanted[-1] == Month.of(now).plus(ahead)
    assert months_ahead(ranges(*wanted), now) == ahead


@given(moments, st.sets(st.integers(-14, MONTHS_AHEAD)))
def test_gaps_are_found_and_nothing_beside_them(now: datetime, gaps: set[int]) -> None:
    there = [month for month in missing([], now) if month not in {Month.of(now).plus(gap) for gap in gaps}]
    assert set(missing(ranges(*there), now)) == set(missing([], now)) - set(there)
    first_gap = min((gap for gap in gaps if gap > 0), default=MONTHS_AHEAD + 1)
    assert months_ahead(ranges(*there), now) == first_gap - 1


def test_what_the_table_from_before_holds_is_not_made() -> None:
    before = Range(None, Month(2027, 1).begin)
    assert missing([before], NOW)[0] == Month(2027, 1)
    assert missing([Range(None, None)], NOW) == []


@given(moments)
def test_what_is_past_holds_no_id_that_a_worker_takes_by_a_clock_that_is_a_day_slow(now: datetime) -> None:
    month = Month.of(oldest_kept(now))
    assert not is_past(Range(month.begin, month.end), now)
    assert is_past(Range(None, month.begin), now)
    last = UUID(int=month.plus(-1).end.int - 1)
    assert last < oldest_taken(now - CLOCKS)


def test_what_has_no_end_is_never_past() -> None:
    assert not is_past(Range(None, None), NOW)
    assert not is_past(Range(Month(1999, 1).begin, None), NOW)


def test_a_partition_says_what_it_is_for() -> None:
    def state(name: str, ids: Range, *, attached: bool = True) -> str:
        return Partition(name, ids, attached=attached, rows=None, bytes=0).state(NOW)

    assert state("view_events_default", Range(None, None)) == "default"
    assert state("view_events_2026_12", *ranges(Month(2026, 12))) == "ahead"
    assert state("view_events_2026_11", *ranges(Month(2026, 11))) == "current"
    assert state("view_events_before_2027_01", Range(None, Month(2027, 1).begin)) == "current"
    assert state("view_events_2026_10", *ranges(Month(2026, 10))) == "kept"
    assert state("view_events_2025_09", *ranges(Month(2025, 9))) == "kept"  # its last id is 419 days old
    assert state("view_events_2025_08", *ranges(Month(2025, 8))) == "past"
    assert state("view_events_2025_08", *ranges(Month(2025, 8)), attached=False) == "detached"
