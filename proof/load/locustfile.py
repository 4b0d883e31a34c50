"""The viewers and services that make the load. `make load` runs them and gives the verdict.

Each keeps the ids of its events until they are accepted, as the player does, and sends the same ids again.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import islice
from random import Random
from typing import Any, ClassVar
from uuid import uuid4

import msgspec
from locust import FastHttpUser, events, task

from proof.load import playback
from proof.load.playback import Step, Video
from proof.load.tally import Tally
from proof.load.target import NoTarget, Target, find
from view_events.event import new_event_id

VIEWS = "/api/views"
JSON = "application/json"
NDJSON = "application/x-ndjson"
#: How often the same events are sent before a client gives up. The player keeps them for the next page.
ATTEMPTS = 5
#: Seconds before sending again if the answer names no pause.
PAUSE_S = 1.0
#: The longest Retry-After (seconds) that a run follows.
LONGEST_PAUSE_S = 10.0
#: One range request of a player: a few seconds of a film.
RANGE_BYTES = 512 * 1024
#: Events in a service's batch. The API accepts up to 1,000.
BATCH_EVENTS = (50, 500)
#: Viewers that one service records for.
MADE_UP_VIEWERS = 200
RETRYABLE = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, 0}


class Client(FastHttpUser):
    """What viewers and services have in common: the library, and sending events until they are accepted."""

    abstract = True
    network_timeout = 10.0
    connection_timeout = 5.0
    #: Each process has one target and one tally.
    target: ClassVar[Target]
    tally: ClassVar[Tally] = Tally()
    #: How many times faster than real people the users are.
    speed: ClassVar[float] = 10.0

    def __init__(self, environment: Any) -> None:
        # Not the host of the web UI: this address was checked, and the token is for it.
        self.host = self.target.url
        super().__init__(environment)
        self.chance = Random()

    def sleep(self, seconds: float) -> None:
        """Sleep for a viewer's seconds, converted to real ones."""
        time.sleep(seconds / self.speed)

    def library(self) -> list[Video]:
        """Return the videos that can be played. Waits until there are some."""
        while True:
            with self.client.get("/api/videos", catch_response=True) as answer:
                listed = answer.json()["videos"] if answer.status_code == HTTPStatus.OK else []
            videos = [
                Video(video["id"], video["duration_s"], video["size_bytes"]) for video in listed if video["duration_s"]
            ]
            if videos:
                return videos
            time.sleep(PAUSE_S)

    def send(self, views: Sequence[dict[str, Any]], *, name: str, headers: Mapping[str, str], lines: bool) -> None:
        """Send events until they are accepted or refused for good, at most ATTEMPTS times."""
        self.tally.sending(views)
        for _ in range(ATTEMPTS):
            pause_s = self._post(views, name, headers, lines=lines)
            if pause_s is None:
                return
            time.sleep(pause_s)

    def _post(
        self, views: Sequence[dict[str, Any]], name: str, headers: Mapping[str, str], *, lines: bool
    ) -> float | None:
        """Send once. Returns the seconds until the next attempt, or None if there is nothing more to send."""
        sent_at = datetime.now(UTC).isoformat(timespec="milliseconds")
        bodies = [msgspec.json.encode({**view, "sent_at": sent_at}) for view in views]
        body = b"\n".join(bodies) if lines else b"[" + b",".join(bodies) + b"]"
        kind = {"Content-Type": NDJSON if lines else JSON}
        with self.client.post(VIEWS, body, name=name, headers={**headers, **kind}, catch_response=True) as answer:  # type: ignore[arg-type]
            if answer.status_code in RETRYABLE:
                return _pause_s(answer.headers)
            if answer.status_code != HTTPStatus.ACCEPTED:
                answer.failure(f"status {answer.status_code}: {(answer.text or '')[:200]}")
                return None
            ids = answer.json()["event_ids"]
            if ids != [view["event_id"] for view in views]:
                answer.failure("accepted, with other ids than were sent")
            self.tally.accept(ids)
            return None


class Viewer(Client):
    """A viewer with a browser: browses, plays a video, opens the history. Gets a cookie with the first page."""

    weight = 9

    def wait_time(self) -> float:
        """Return the seconds between two tasks."""
        return self.chance.uniform(1, 3) / self.speed

    def on_start(self) -> None:
        self.client.get("/")
        self.videos = self.library()

    @task(5)
    def play(self) -> None:
        """Play one video: the page first, then range requests and reports as the video plays."""
        video, playback_id = self.chance.choice(self.videos), str(new_event_id())
        self.client.get(f"/watch/{video.id}", name="/watch/<id>")
        self._range(video, 0, 1)
        for step in playback.steps(video.duration_s, self.chance):
            self.sleep(step.after_s)
            self._stream(video, step)
            views = [playback.view(step, video, playback_id, datetime.now(UTC))]
            self.send(views, name=VIEWS, headers={"Origin": self.target.url}, lines=False)

    def _stream(self, video: Video, step: Step) -> None:
        """Request the bytes of what was played since the last step, one range after another."""
        begin, end = video.byte_at(step.position_s - step.after_s), video.byte_at(step.position_s)
        for first in range(begin, end, RANGE_BYTES):
            self._range(video, first, min(first + RANGE_BYTES, end))

    def _range(self, video: Video, begin: int, end: int) -> None:
        name, headers = "/videos/<id>/stream", {"Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
        with self.client.get(
            f"/videos/{video.id}/stream?playback=1", name=name, headers=headers, catch_response=True
        ) as answer:
            if answer.status_code == HTTPStatus.PARTIAL_CONTENT and len(answer.content or b"") != end - begin:
                answer.failure("not as many bytes as were asked for")
            elif answer.status_code == HTTPStatus.OK:
                answer.failure("all of it, where a range was asked for")

    @task(2)
    def browse(self) -> None:
        """Open the library again."""
        self.client.get("/")
        self.videos = self.library()

    @task(1)
    def open_history(self) -> None:
        """Open the history: the page, and what its script requests."""
        self.client.get("/history")
        self.client.get("/api/history")


class Ingest(Client):
    """A service that sends what its viewers watched, in batches, with an ingest token."""

    weight = 1

    def wait_time(self) -> float:
        """Return the seconds between two batches."""
        return self.chance.uniform(0.5, 1.5)

    def on_start(self) -> None:
        viewers = [f"load-{uuid4().hex[:12]}" for _ in range(MADE_UP_VIEWERS)]
        self.views = playback.many(self.library(), viewers, self.chance)
        self.headers = {"Authorization": f"Bearer {self.target.ingest_token}"}

    @task
    def send_batch(self) -> None:
        """Send one batch, as an array or as lines."""
        batch = list(islice(self.views, self.chance.randint(*BATCH_EVENTS)))
        self.send(batch, name=f"{VIEWS} (batch)", headers=self.headers, lines=self.chance.random() < 0.5)  # noqa: PLR2004


def _pause_s(headers: Mapping[str, str] | None) -> float:
    """Return Retry-After in seconds, or PAUSE_S if it is missing or a date."""
    wanted = (headers or {}).get("Retry-After", "")
    return min(float(wanted), LONGEST_PAUSE_S) if wanted.isdecimal() else PAUSE_S


def _find_target(**_: Any) -> None:
    """Find the target for plain `locust`, which shows the load but gives no verdict."""
    try:
        Client.target = find(os.environ)
    except NoTarget as reason:
        sys.exit(reason.message)


events.init.add_listener(_find_target)  # type: ignore[no-untyped-call]
