"""The limit on how many requests of one viewer the history API runs at a time."""

from __future__ import annotations

import pytest

from history_worker.viewer_limit import Share, TooMany


def test_a_viewer_gets_so_much_at_a_time_and_the_others_notice_nothing() -> None:
    share = Share(2)
    with share.taken("greedy"), share.taken("greedy"):
        with pytest.raises(TooMany), share.taken("greedy"):
            pass
        with share.taken("alice"):
            pass
    with share.taken("greedy"):
        pass


def test_a_request_that_fails_gives_its_place_back() -> None:
    share = Share(1)
    for _ in range(3):
        with pytest.raises(RuntimeError), share.taken("alice"):
            raise RuntimeError
    assert not share._running  # noqa: SLF001 (nothing is remembered of viewers who have gone)
