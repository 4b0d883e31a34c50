"""The verdict of the load test: it has to fail when something is lost, or counted twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest

from proof.load.receipts import NoReceipt, check_stored, wait_until_stored
from proof.load.tally import Receipt, Tally, Verdict


class History:
    """A history that stores what it is told to, and counts it as it is told to."""

    def __init__(self) -> None:
        self.stored: set[str] = set()
        self.counted_twice: set[str] = set()
        self.never_counted: set[str] = set()
        self.away_for = 0
        self.questions: list[tuple[str, ...]] = []

    def ask(self, ids: Sequence[str]) -> Receipt:
        self.questions.append(tuple(ids))
        if self.away_for:
            self.away_for -= 1
            raise NoReceipt("told to be away")
        known = self.stored & set(ids)
        counted = len(known) + len(known & self.counted_twice) - len(known & self.never_counted)
        return Receipt(tuple(ids), frozenset(ids) - known, counted)


@pytest.fixture
def history() -> History:
    return History()


def some_views(count: int, playback_id: str | None = None) -> list[dict[str, Any]]:
    playback_id = playback_id or str(uuid4())
    return [{"event_id": str(uuid4()), "playback_id": playback_id} for _ in range(count)]


def ids_of(views: Sequence[dict[str, Any]]) -> list[str]:
    return [view["event_id"] for view in views]


def accepted(tally: Tally, views: Sequence[dict[str, Any]]) -> list[str]:
    tally.sending(views)
    tally.accept(ids_of(views))
    return ids_of(views)


def judged(tally: Tally, history: History) -> Verdict:
    return tally.verdict(wait_until_stored(tally, history, lambda: None, stall_timeout_s=0))


def test_all_stored_and_counted_once_is_no_fault(history: History) -> None:
    tally = Tally()
    for _ in range(50):
        history.stored |= set(accepted(tally, some_views(7)))
    verdict = judged(tally, history)
    assert (verdict.accepted, verdict.stored, verdict.lost, verdict.duplicated) == (350, 350, 0, 0)
    assert verdict.faults == []


def test_a_missing_event_is_lost(history: History) -> None:
    tally = Tally()
    _missing, *stored = accepted(tally, some_views(7))
    history.stored |= set(stored)
    verdict = judged(tally, history)
    assert (verdict.accepted, verdict.stored, verdict.lost) == (7, 6, 1)
    assert verdict.faults == ["1 accepted events are not stored."]


def test_an_event_counted_twice_is_duplicated(history: History) -> None:
    tally = Tally()
    ids = accepted(tally, some_views(7))
    history.stored |= set(ids)
    history.counted_twice.add(ids[3])
    verdict = judged(tally, history)
    assert (verdict.stored, verdict.lost, verdict.duplicated) == (7, 0, 1)
    assert verdict.faults == ["1 events are counted more than once."]


def test_a_stored_event_that_was_not_counted_is_a_fault(history: History) -> None:
    tally = Tally()
    ids = accepted(tally, some_views(7))
    history.stored |= set(ids)
    history.never_counted.add(ids[3])
    verdict = judged(tally, history)
    assert (verdict.lost, verdict.duplicated, verdict.uncounted) == (0, 0, 1)
    assert verdict.faults


def test_an_event_in_doubt_may_be_stored_or_not(history: History) -> None:
    tally = Tally()
    playback = some_views(4)
    history.stored |= set(accepted(tally, playback[:2]))
    tally.sending(playback[2:])
    history.stored.add(playback[2]["event_id"])  # its 202 never arrived
    verdict = judged(tally, history)
    assert (verdict.accepted, verdict.stored, verdict.in_doubt, verdict.in_doubt_stored) == (2, 2, 2, 1)
    assert verdict.duplicated == 0, "an event in doubt was taken for one that was counted twice"
    assert verdict.faults == []


def test_sent_again_and_then_accepted_is_one_accepted_event() -> None:
    tally = Tally()
    views = some_views(3)
    tally.sending(views)
    tally.sending(views)
    tally.accept(ids_of(views))
    tally.accept(ids_of(views))
    assert (tally.sent, tally.accepted, tally.seen) == (3, 3, 0)


def test_nothing_accepted_is_a_fault(history: History) -> None:
    assert judged(Tally(), history).faults == ["No event was accepted."]


def test_a_playback_is_never_cut() -> None:
    tally = Tally()
    playbacks = [some_views(count) for count in (4, 4, 4, 30, 1, 2)]
    for step in range(30):  # side by side, as they are sent
        tally.sending([views[step] for views in playbacks if step < len(views)])
    slices = list(tally.slices(10))
    assert [len(ids) for ids in slices] == [8, 4, 30, 3]
    for views in playbacks:
        assert any(set(ids_of(views)) <= set(ids) for ids in slices)


def test_what_is_stored_already_is_not_asked_for_again(history: History) -> None:
    tally = Tally()
    _missing, *stored = accepted(tally, some_views(7))
    history.stored |= set(stored)
    check_stored(tally, history)
    check_stored(tally, history)
    assert [len(ids) for ids in history.questions] == [7, 1]
    assert tally.seen == 6


def test_a_history_that_comes_back_is_asked_again(history: History) -> None:
    tally = Tally()
    history.stored |= set(accepted(tally, some_views(7)))
    history.away_for = 1
    assert tally.verdict(wait_until_stored(tally, history, lambda: None, stall_timeout_s=5)).faults == []


def test_a_history_that_stays_away_gives_no_verdict(history: History) -> None:
    tally = Tally()
    accepted(tally, some_views(7))
    history.away_for = 1_000_000
    with pytest.raises(NoReceipt):
        judged(tally, history)
