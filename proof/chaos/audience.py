"""Who watches: many viewers, each of whose players reports, and services that report for several of them at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

import msgspec

from proof.chaos.ledger import Event
from proof.load.playback import Video, steps
from view_events.event import new_event_id

VIEWERS = 120
#: Playbacks that go on side by side.
AT_A_TIME = 40
#: Shares of the requests: a player's single event; what a player had kept, as an array; a service's, a line each.
#: The rest is a service's array.
SINGLE, KEPT, LINES = 0.5, 0.2, 0.15
#: Events in a request with several.
FEWEST, MOST = 2, 16
#: This share of the events is kept back and sent later: phones lose their network.
LATE = 0.1
#: Most players say what time their clock has; the others' times are taken as they are.
SAYS_TIME = 0.7


@dataclass(frozen=True, slots=True)
class Parcel:
    """The events of one request. `viewer_id`: whose token it has; None is a service's (ingest)."""

    events: tuple[Event, ...]
    viewer_id: str | None
    lines: bool = False  #: NDJSON
    says_time: bool = True  #: each event has `sent_at`


class Audience:
    """Makes requests without end, the same for the same chance, apart from ids and times. For one thread."""

    def __init__(self, videos: Sequence[Video], chance: Random, name: str) -> None:
        self._videos = videos
        self._chance = chance
        self._viewers = [f"{name}-{number}" for number in range(VIEWERS)]
        self._late: list[Event] = []
        self._running = [self._playback() for _ in range(AT_A_TIME)]

    def parcel(self, skew: timedelta) -> Parcel:
        """The next request, of players whose clocks are wrong by `skew`."""
        kind = self._chance.random()
        says_time = self._chance.random() < SAYS_TIME
        if kind < SINGLE:
            event = self._event(skew)
            return Parcel((event,), event.viewer_id, says_time=says_time)
        size = self._chance.randint(FEWEST, MOST)
        if kind < SINGLE + KEPT:
            events = self._of_one(size, skew)
            return Parcel(events, events[0].viewer_id, says_time=says_time)
        lines = kind < SINGLE + KEPT + LINES
        return Parcel(tuple(self._event(skew) for _ in range(size)), None, lines=lines, says_time=says_time)

    def _event(self, skew: timedelta) -> Event:
        if self._late and self._chance.random() < LATE:
            return self._late.pop(self._chance.randrange(len(self._late)))
        while True:
            event = self._next(self._chance.randrange(AT_A_TIME), skew)
            if self._chance.random() >= LATE:
                return event
            self._late.append(event)

    def _of_one(self, size: int, skew: timedelta) -> tuple[Event, ...]:
        """Of one viewer's playback, in any order; fewer where it ends."""
        slot = self._chance.randrange(AT_A_TIME)
        events = [self._next(slot, skew)]
        while len(events) < size:
            event = self._next(slot, skew)
            if event.playback_id != events[0].playback_id:
                self._late.append(event)
                break
            events.append(event)
        self._chance.shuffle(events)
        return tuple(events)

    def _next(self, slot: int, skew: timedelta) -> Event:
        event = next(self._running[slot], None)
        if event is None:
            self._running[slot] = self._playback()
            event = next(self._running[slot])
        return msgspec.structs.replace(event, at=event.at + skew) if skew else event

    def _playback(self) -> Iterator[Event]:
        video, viewer_id, playback_id = (
            self._chance.choice(self._videos),
            self._chance.choice(self._viewers),
            str(new_event_id()),
        )
        # It has just been played; nobody here waits for that.
        at = datetime.now(UTC) - timedelta(seconds=min(video.duration_s, 60.0) * 2)
        for step in steps(video.duration_s, self._chance):
            at += timedelta(seconds=step.after_s)
            yield Event(
                event_id=str(new_event_id()),
                viewer_id=viewer_id,
                video_id=video.id,
                playback_id=playback_id,
                kind=step.kind,
                position_s=round(step.position_s, 3),
                played_from_s=None if step.played_from_s is None else round(step.played_from_s, 3),
                at=at,
            )
