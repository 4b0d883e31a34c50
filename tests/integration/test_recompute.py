"""Recomputing the playbacks from the log: it agrees with the writer, and names what was changed behind its back."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from history_worker.store.writer import write
from proof.chaos.recompute import playbacks_differ
from tests.fakes import an_event
from view_events.event import ViewEvent

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def some(number: int, chance: random.Random) -> list[ViewEvent]:
    """Events of few playbacks, with ties in time, seeks, empty intervals and odd fractions of a second."""
    events = []
    for _ in range(number):
        position_s = chance.choice([0.0, 0.1 + 0.2, chance.uniform(0, 100), float(chance.randrange(100))])
        events.append(
            an_event(
                viewer_id=chance.choice(["alice", "bob"]),
                playback_id=UUID(int=chance.randrange(4)),
                video_id=chance.choice(["clip-1", "clip-2"]),
                kind=chance.choice(["started", "progress", "finished"]),
                position_s=position_s,
                played_from_s=chance.choice([None, 0.0, position_s, position_s / 3]),
                at=NOON + timedelta(seconds=chance.randrange(20)),
            )
        )
    return events


def differences(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return playbacks_differ(connection)


@pytest.mark.parametrize("seed", range(10))
def test_what_the_writer_made_of_shuffled_and_repeated_batches_is_what_the_log_gives(engine: Engine, seed: int) -> None:
    chance = random.Random(seed)
    events = some(120, chance)
    for _ in range(20):
        write(engine, chance.sample(events, chance.randrange(1, 30)))
        assert differences(engine) == []


def test_an_empty_history_has_no_differences(engine: Engine) -> None:
    assert differences(engine) == []


@pytest.mark.parametrize(
    ("behind_its_back", "named"),
    [
        ("DELETE FROM playbacks", "missing, and the log has 3 events"),
        ("DELETE FROM view_events", "extra, with 3 events"),
        ("UPDATE playbacks SET events = 4", "events is 4, and the log gives 3"),
        ("UPDATE playbacks SET position_s = 1", "position_s is 1, and the log gives 30"),
        ("UPDATE playbacks SET finished = true", "finished is True, and the log gives False"),
        ("UPDATE playbacks SET played = '{[0,5)}'", "played is {[0.0,5.0)}, and the log gives {[0.0,30.0)}"),
        ("UPDATE playbacks SET started_at = last_at", "started_at is 2026-06-01T12:00:30+00:00, and the log gives"),
        ("UPDATE playbacks SET last_at = started_at", "last_at is 2026-06-01T12:00:10+00:00, and the log gives"),
        ("UPDATE playbacks SET last_event_id = gen_random_uuid()", "last_event_id is"),
        ("DELETE FROM view_events WHERE position_s = 10", "events is 3, and the log gives 2"),
        ("UPDATE playbacks SET video_id = 'clip-2'", "of 'clip-2' by 'alice': extra"),
    ],
)
def test_every_difference_is_named(engine: Engine, behind_its_back: str, named: str) -> None:
    write(
        engine,
        [
            an_event(
                playback_id=UUID(int=1),
                position_s=float(second),
                played_from_s=float(second - 10),
                at=NOON + timedelta(seconds=second),
            )
            for second in (10, 20, 30)
        ],
    )
    with engine.begin() as connection:
        connection.execute(text(behind_its_back))
    lines = differences(engine)
    assert any(named in line for line in lines), lines
    assert all(line.startswith("playback 00000000-0000-0000-0000-000000000001 of 'clip-") for line in lines)
