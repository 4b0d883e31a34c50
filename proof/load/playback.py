"""Simulates how people watch: what a player reports of one playback, and the mixed events that a service sends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from view_events.event import Kind, new_event_id

#: A player reports its progress this often, in seconds (streaming_app/static/player.js).
PROGRESS_EVERY_S = 10.0
#: No viewer here watches for more seconds than this: they jump to the end of a long video.
LONGEST_PART_S = 60.0
#: Shares of the playbacks.
LEAVE_EARLY = 0.25
JUMP = 0.3
#: Playbacks that a service reports at the same time.
AT_A_TIME = 40


@dataclass(frozen=True, slots=True)
class Video:
    """What a player knows about a video. `duration_s` is in seconds."""

    id: str
    duration_s: float
    size_bytes: int

    def byte_at(self, position_s: float) -> int:
        return min(self.size_bytes, int(self.size_bytes * position_s / self.duration_s))


@dataclass(frozen=True, slots=True)
class Step:
    """One report: the video has played since `played_from_s`, or nothing has played yet (None)."""

    kind: Kind
    position_s: float
    played_from_s: float | None
    after_s: float  #: seconds of playing since the step before


def steps(duration_s: float, chance: Random) -> Iterator[Step]:
    """Yield what a player reports of one playback: started, progress, and usually finished."""
    yield Step("started", 0.0, None, 0.0)
    parts = _parts(duration_s, chance)
    leaves = chance.random() < LEAVE_EARLY
    for index, (begin, end) in enumerate(parts):
        last = index == len(parts) - 1
        if last and leaves:
            end = begin + (end - begin) * chance.random()  # noqa: PLW2901
        position = begin
        while end - position > PROGRESS_EVERY_S:
            position += PROGRESS_EVERY_S
            yield Step("progress", position, begin, PROGRESS_EVERY_S)
        yield Step("finished" if last and not leaves else "progress", end, begin, end - position)


def _parts(duration_s: float, chance: Random) -> list[tuple[float, float]]:
    """Return the intervals that are played, in order. Between them the viewer jumps ahead."""
    if duration_s <= LONGEST_PART_S and chance.random() > JUMP:
        return [(0.0, duration_s)]
    first = chance.random() * min(duration_s, LONGEST_PART_S) / 2
    again = max(duration_s - LONGEST_PART_S, first + (duration_s - first) * chance.random())
    return [(0.0, first), (again, duration_s)]


def view(step: Step, video: Video, playback_id: str, at: datetime, viewer_id: str | None = None) -> dict[str, Any]:
    """Return a step for `POST /api/views`, with an id of its own. Sent again, it is the same event."""
    return {
        "event_id": str(new_event_id()),
        "kind": step.kind,
        "video_id": video.id,
        "playback_id": playback_id,
        "position_s": round(step.position_s, 3),
        **({} if step.played_from_s is None else {"played_from_s": round(step.played_from_s, 3)}),
        "at": at.isoformat(timespec="milliseconds"),
        **({} if viewer_id is None else {"viewer_id": viewer_id}),
    }


def many(videos: Sequence[Video], viewers: Sequence[str], chance: Random) -> Iterator[dict[str, Any]]:
    """Yield views without end, of many playbacks at the same time, as a service sends them. Its batches
    mix playbacks.
    """
    running = [_one(videos, viewers, chance) for _ in range(AT_A_TIME)]
    while True:
        slot = chance.randrange(AT_A_TIME)
        following = next(running[slot], None)
        if following is None:
            running[slot] = _one(videos, viewers, chance)
        else:
            yield following


def _one(videos: Sequence[Video], viewers: Sequence[str], chance: Random) -> Iterator[dict[str, Any]]:
    video, viewer_id, playback_id = chance.choice(videos), chance.choice(viewers), str(new_event_id())
    at = datetime.now(UTC) - timedelta(seconds=min(video.duration_s, 4 * LONGEST_PART_S))
    for step in steps(video.duration_s, chance):
        at += timedelta(seconds=step.after_s)
        yield view(step, video, playback_id, at, viewer_id)
