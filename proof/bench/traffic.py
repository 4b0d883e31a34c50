"""The traffic of a benchmark: views of many viewers, made before any clock starts.

A playback is ten events: started, eight times progress, and finished. Each has the seconds that really played since the
event before. A body of 500 contains fifty complete playbacks, as another service uploads them. Single events come
from clients that each play one playback after another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import uuid4

import uuid_utils

VIEWERS = 20_000
VIDEOS = ("clip-1", "clip-2", "clip-3")
EVENTS_OF_A_PLAYBACK = 10
STEP_S = 10
KINDS = ("started", *["progress"] * (EVENTS_OF_A_PLAYBACK - 2), "finished")


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its id, and the JSON object that a client sends."""

    event_id: str
    json: str


def playbacks(start: int = 0) -> Iterator[list[Event]]:
    """Yield playbacks without end. The viewers follow one another from `start` on. All playbacks are over by now."""
    began = datetime.now(UTC) - timedelta(seconds=STEP_S * EVENTS_OF_A_PLAYBACK)
    times = [(began + timedelta(seconds=STEP_S * step)).isoformat() for step in range(EVENTS_OF_A_PLAYBACK)]
    number = start
    while True:
        playback_id, viewer, video = uuid4(), f"viewer-{number % VIEWERS:05}", VIDEOS[number % len(VIDEOS)]
        events = []
        for step, kind in enumerate(KINDS):
            event_id = str(uuid_utils.uuid7())
            played = f'"played_from_s":{(step - 1) * STEP_S},' if step else ""
            events.append(
                Event(
                    event_id,
                    f'{{"event_id":"{event_id}","kind":"{kind}","video_id":"{video}","playback_id":"{playback_id}",'
                    f'"position_s":{step * STEP_S},{played}"at":"{times[step]}","viewer_id":"{viewer}"}}',
                )
            )
        yield events
        number += 1


def bodies(events: int, size: int) -> list[list[Event]]:
    """Make bodies of complete playbacks: `size` events per body, `events` in all."""
    per_body = size // EVENTS_OF_A_PLAYBACK
    endless = playbacks()
    return [
        [event for playback in islice(endless, per_body) for event in playback] for _ in range(max(1, events // size))
    ]


def singles(events: int, clients: int) -> list[list[list[Event]]]:
    """Make bodies of one event for each client. A client plays one playback after another."""
    each = max(1, events // clients)
    return [
        [[event] for event in islice((event for playback in playbacks(client * 300) for event in playback), each)]
        for client in range(clients)
    ]


def distribute(bodies_of_all: list[list[Event]], clients: int) -> list[list[list[Event]]]:
    """Distribute the bodies to the clients."""
    return [bodies_of_all[client::clients] for client in range(clients)]


def as_received(event: Event) -> str:
    """Return the event as a worker gets it: with the time when it was received."""
    return f'{event.json[:-1]},"received_at":"{datetime.now(UTC).isoformat()}"}}'


def request(path: str, token: str, events: list[Event]) -> bytes:
    """Make a complete HTTP request, as it is sent. One event is an object, several are an array."""
    content = events[0].json if len(events) == 1 else "[" + ",".join(event.json for event in events) + "]"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return (head + content).encode()
