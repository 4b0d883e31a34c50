"""What the load test's people report has to be what a player would."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from random import Random

import msgspec
import pytest

from proof.load.playback import LONGEST_PART_S, Video, many, steps
from streaming_app.access.auth import Caller
from streaming_app.recording.request import check, decode


@pytest.mark.parametrize("duration_s", [0.5, 15.0, 30.0, 7_200.0])
def test_a_playback_begins_and_moves_on_and_ends(duration_s: float) -> None:
    finished = 0
    for seed in range(200):
        played = list(steps(duration_s, Random(seed)))
        assert played[0].kind == "started"
        assert [step.kind for step in played].count("started") == 1
        assert all(step.kind == "progress" for step in played[1:-1])
        positions = [step.position_s for step in played]
        assert positions == sorted(positions)
        assert positions[-1] <= duration_s
        assert all(step.played_from_s <= step.position_s for step in played if step.played_from_s is not None)
        assert sum(step.after_s for step in played) <= 1.5 * LONGEST_PART_S
        if played[-1].kind == "finished":
            assert positions[-1] == duration_s
            finished += 1
    assert 100 < finished < 200


def test_a_services_views_are_taken_at_the_edge() -> None:
    videos = [Video("clip-1", 15.0, 1_000_000), Video("film", 7_200.0, 5_000_000_000)]
    batch = list(islice(many(videos, ["load-1", "load-2"], Random(1)), 1_000))
    body = msgspec.json.encode(batch)
    events = check(decode(body), Caller(None, ingest=True), datetime.now(UTC), known={"clip-1", "film"}.__contains__)
    assert [str(event.event_id) for event in events] == [view["event_id"] for view in batch]
    assert {event.kind for event in events} == {"started", "progress", "finished"}
    assert len({event.playback_id for event in events}) > 100
