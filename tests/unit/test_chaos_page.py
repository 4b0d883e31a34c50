"""What a history has to say of what really played in a browser."""

from __future__ import annotations

from typing import Any

from proof.chaos.page import Visit, differences

TWO = [Visit(((0.0, 5.0), (9.0, 12.0)), 12.0), Visit(((12.0, 20.0),), 20.0)]


def item(watched_s: float, position_s: float, *, finished: bool = False) -> dict[str, Any]:
    return {"watched_s": watched_s, "position_s": position_s, "finished": finished}


def test_a_history_that_has_it_all_differs_in_nothing() -> None:
    assert list(differences(TWO, [item(7.8, 20.0), item(7.9, 12.0)])) == []
    assert list(differences(TWO, [item(7.8, 30.0, finished=True), item(7.9, 12.0)])) == []


def test_a_visit_that_is_missing_or_counts_twice_is_named() -> None:
    (missing,) = differences(TWO, [item(8.0, 20.0)])
    assert "14.8 s really played in 2 visits, and the history has 8.0 s" in missing
    (twice,) = differences(TWO, [item(8.0, 20.0), item(8.0, 12.0), item(8.0, 12.0)])
    assert "no more than" in twice


def test_a_place_that_is_not_where_the_viewer_left_is_named() -> None:
    (place,) = differences(TWO, [item(8.0, 12.0), item(8.0, 20.0)])
    assert place == "left at 20.0 s, and the history says 12.0 s"


def test_a_look_at_the_end_of_a_visit_may_leave_the_place_where_it_was() -> None:
    look = [Visit(((0.0, 9.0), (20.0, 21.5)), 21.5)]
    assert list(differences(look, [item(10.5, 9.0)])) == []


def test_what_was_played_again_counts_once_or_twice() -> None:
    again = [Visit(((0.0, 5.0), (3.0, 5.0)), 5.0)]
    assert again[0].seconds == 7.0
    assert again[0].distinct_seconds == 5.0
    assert list(differences(again, [item(5.0, 5.0)])) == []
    assert list(differences(again, [item(7.0, 5.0)])) == []
