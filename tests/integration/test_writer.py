"""Writing: each event once, and playbacks that depend on the set of events and not on the order they came in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from history_worker.store.queries import Cursor, history, receipts
from history_worker.store.writer import write
from service.database import is_refusal
from streaming_app.recording.stream_views import derived_id
from tests.fakes import an_event
from view_events.event import ViewEvent

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def playback(seconds: int = 6, **fields: Any) -> list[ViewEvent]:
    """started, progress every second, finished: all of one playback."""
    fields = {"playback_id": uuid4(), "viewer_id": "alice", **fields}
    kinds = ["started", *["progress"] * (seconds - 1), "finished"]
    return [
        an_event(
            kind=kind, position_s=float(i), played_from_s=float(max(0, i - 1)), at=NOON + timedelta(seconds=i), **fields
        )
        for i, kind in enumerate(kinds)
    ]


def derived(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT * FROM playbacks ORDER BY viewer_id, playback_id, video_id"))
        return [tuple(str(value) for value in row) for row in rows]


def stored(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM view_events")).scalar_one())


def only(engine: Engine, viewer_id: str = "alice") -> dict[str, Any]:
    items: list[dict[str, Any]] = history(engine, viewer_id)["items"]
    assert len(items) == 1
    return items[0]


def batches(events: Sequence[ViewEvent], chance: random.Random) -> list[list[ViewEvent]]:
    """Shuffled, cut into batches, some of them delivered twice."""
    shuffled = chance.sample(events, len(events))
    cuts = sorted(chance.sample(range(1, len(events)), 4))
    parts = [list(shuffled[a:b]) for a, b in zip([0, *cuts], [*cuts, len(events)], strict=True)]
    return parts + chance.sample(parts, 2)


def test_a_redelivered_batch_changes_nothing(engine: Engine) -> None:
    events = playback()
    assert write(engine, events) == 7
    before = derived(engine)
    assert write(engine, events) == 0
    assert derived(engine) == before
    assert stored(engine) == 7


def test_only_what_is_new_in_an_overlapping_batch_counts(engine: Engine) -> None:
    events = playback()
    write(engine, events[:4])
    assert write(engine, events[2:]) == 3
    assert receipts(engine, [event.event_id for event in events]) == {"stored": 7, "counted": 7, "missing": []}


def test_the_first_event_of_an_id_wins(engine: Engine) -> None:
    event = an_event(position_s=5.0)
    write(engine, [event])
    write(engine, [an_event(event_id=event.event_id, position_s=99.0)])
    assert only(engine)["position_s"] == 5.0


@pytest.mark.parametrize("seed", range(20))
def test_order_and_repeats_do_not_matter(engine: Engine, seed: int) -> None:
    chance = random.Random(seed)
    events = playback(9, playback_id=UUID(int=1)) + playback(9, playback_id=UUID(int=2), video_id="clip-2")
    write(engine, events)
    expected = derived(engine)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE view_events, playbacks"))
    for batch in batches(events, chance):
        write(engine, batch)
    assert derived(engine) == expected
    assert stored(engine) == len(events)


def test_the_position_follows_event_time_and_not_arrival(engine: Engine) -> None:
    playback_id = uuid4()
    for second, position in ((50, 50.0), (10, 10.0), (30, 30.0)):
        at = NOON + timedelta(seconds=second)
        write(engine, [an_event(playback_id=playback_id, at=at, position_s=position)])
    item = only(engine)
    assert item["position_s"] == 50.0
    assert item["last_at"] == NOON + timedelta(seconds=50)
    assert item["started_at"] == NOON + timedelta(seconds=10)


@pytest.mark.parametrize("larger_first", [True, False])
def test_a_tie_in_time_goes_to_the_larger_id(engine: Engine, *, larger_first: bool) -> None:
    playback_id = uuid4()
    smaller, larger = (
        an_event(
            event_id=derived_id(NOON + timedelta(seconds=i), "tie", key=b"test"),
            playback_id=playback_id,
            at=NOON,
            position_s=float(i),
        )
        for i in (1, 2)
    )
    for event in (larger, smaller) if larger_first else (smaller, larger):
        write(engine, [event])
    assert only(engine)["position_s"] == 2.0


@pytest.mark.parametrize(
    ("intervals", "watched_s"),
    [
        ([(0, 10)], 10),
        ([(0, 10), (0, 10)], 10),
        ([(0, 10), (5, 15)], 15),
        ([(50, 60), (0, 10)], 20),
        ([(0, 10), (10, 20), (3, 4)], 20),
        ([(7, 7)], 0),
        ([(0, 0.25), (0.125, 0.5)], 0.5),
        ([], 0),
    ],
)
def test_watched_time_is_the_union_of_what_was_played(
    engine: Engine, intervals: list[tuple[float, float]], watched_s: float
) -> None:
    playback_id = uuid4()
    write(engine, [an_event(playback_id=playback_id, kind="started", position_s=0.0)])
    for begin, end in intervals:
        write(engine, [an_event(playback_id=playback_id, played_from_s=float(begin), position_s=float(end))])
    assert only(engine)["watched_s"] == watched_s


def test_one_playback_id_of_two_viewers_is_two_playbacks(engine: Engine) -> None:
    playback_id = uuid4()
    write(engine, [an_event(viewer_id=name, playback_id=playback_id) for name in ("alice", "bob")])
    assert only(engine, "alice")["playback_id"] == only(engine, "bob")["playback_id"] == playback_id


def test_a_batch_is_stored_whole_or_not_at_all(engine: Engine) -> None:
    with pytest.raises(DBAPIError) as refused:
        write(engine, [an_event(), an_event(viewer_id="nul\0")])
    assert is_refusal(refused.value)
    assert stored(engine) == 0


def test_what_is_logged_of_an_error_names_no_viewer(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(DBAPIError) as missing:
        connection.execute(text("SELECT FROM missing WHERE viewer_id = :viewer_id"), {"viewer_id": "alice"})
    assert "relation" in str(missing.value)
    assert "alice" not in str(missing.value)


def test_many_writers_of_the_same_rows_never_deadlock(engine: Engine) -> None:
    """Overlapping, shuffled batches of the same playbacks: an order of locks that differed would deadlock here."""
    events = [event for n in range(40) for event in playback(9, playback_id=UUID(int=n))]
    chance = random.Random(7)
    work = [chance.sample(events, 200) for _ in range(64)]
    with ThreadPoolExecutor(8) as pool:
        new = list(pool.map(lambda batch: write(engine, batch), work))
    sent = {event.event_id for batch in work for event in batch}
    assert sum(new) == len(sent) == stored(engine)
    assert receipts(engine, list(sent))["counted"] == len(sent)


def test_the_history_pages_by_key(engine: Engine) -> None:
    # Seven at the same moment: the key, not the time alone, decides where a page ends.
    for n in range(25):
        at = NOON + timedelta(minutes=max(7, n))
        write(engine, [an_event(at=at, received_at=at)])
    write(engine, [an_event(viewer_id="bob")])
    seen: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = history(engine, "alice", limit=4, after=Cursor.decode(cursor) if cursor else None)
        seen += page["items"]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert len({item["playback_id"] for item in seen}) == len(seen) == 25
    assert [item["last_at"] for item in seen] == sorted((item["last_at"] for item in seen), reverse=True)


def test_a_receipt_names_what_is_missing(engine: Engine) -> None:
    event, missing = an_event(), an_event()
    write(engine, [event])
    ids = [event.event_id, missing.event_id]
    assert receipts(engine, ids) == {"stored": 1, "counted": 1, "missing": [str(missing.event_id)]}


def test_a_receipt_shows_an_event_that_was_counted_twice_or_not_at_all(engine: Engine) -> None:
    events = playback()
    write(engine, events)
    ids = [event.event_id for event in events]
    for events_counted in (8, 6):
        with engine.begin() as connection:
            connection.execute(text("UPDATE playbacks SET events = :n"), {"n": events_counted})
        assert receipts(engine, ids) == {"stored": 7, "counted": events_counted, "missing": []}


def test_receipts_of_one_moment_agree_while_events_are_being_written(engine: Engine) -> None:
    events = [event for n in range(200) for event in playback(9, playback_id=UUID(int=n))]
    ids = [event.event_id for event in events]
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: [write(engine, events[at : at + 7]) for at in range(0, len(events), 7)])
        looks = 0
        while not writing.done():
            receipt = receipts(engine, ids)
            assert receipt["counted"] == receipt["stored"]
            looks += 1
        writing.result()
    assert looks > 3
