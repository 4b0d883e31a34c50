"""Makes the requests of a run: players of many viewers, and services that report for several viewers at once."""

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
#: Playbacks that go on at the same time.
AT_A_TIME = 40
#: Shares of the requests: a player's single event; events that a player had stored, as an array; a service's events,
#: one per line. The rest: a service's events as an array.
SINGLE, KEPT, LINES = 0.5, 0.2, 0.15
#: Minimum and maximum number of events in a request with several.
FEWEST, MOST = 2, 16
#: Share of the events that are kept back and sent later, because phones lose their network.
LATE = 0.1
#: Share of the players that send their clock's time (`sent_at`). The times of the others are used as they are.
SENT_AT_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class RequestContent:
    """The events of one request. `viewer_id`: the viewer of its token, or None for a service (ingest)."""

    events: tuple[Event, ...]
    viewer_id: str | None
    lines: bool = False  #: NDJSON
    has_sent_at: bool = True  #: each event has `sent_at`


class Audience:
    """Makes requests without end. For the same random numbers they are the same, except ids and times.
    For one thread.
    """

    def __init__(self, videos: Sequence[Video], chance: Random, name: str) -> None:
        self._videos = videos
        self._chance = chance
        self._viewers = [f"{name}-{number}" for number in range(VIEWERS)]
        self._late: list[Event] = []
        self._running = [self._playback() for _ in range(AT_A_TIME)]

    def content(self, skew: timedelta) -> RequestContent:
        """Return the next request, of players whose clocks are wrong by `skew`."""
        kind = self._chance.random()
        has_sent_at = self._chance.random() < SENT_AT_SHARE
        if kind < SINGLE:
            event = self._event(skew)
            return RequestContent((event,), event.viewer_id, has_sent_at=has_sent_at)
        size = self._chance.randint(FEWEST, MOST)
        if kind < SINGLE + KEPT:
            events = self._of_one(size, skew)
            return RequestContent(events, events[0].viewer_id, has_sent_at=has_sent_at)
        lines = kind < SINGLE + KEPT + LINES
        return RequestContent(tuple(self._event(skew) for _ in range(size)), None, lines=lines, has_sent_at=has_sent_at)

    def _event(self, skew: timedelta) -> Event:
        if self._late and self._chance.random() < LATE:
            return self._late.pop(self._chance.randrange(len(self._late)))
        while True:
            event = self._next(self._chance.randrange(AT_A_TIME), skew)
            if self._chance.random() >= LATE:
                return event
            self._late.append(event)

    def _of_one(self, size: int, skew: timedelta) -> tuple[Event, ...]:
        """Return events of one viewer's playback, in any order; fewer if the playback ends."""
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
        # The playback is over already, because nothing here waits for playing.
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
