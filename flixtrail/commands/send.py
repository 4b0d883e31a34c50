"""`flixtrail send`: record N views over HTTP, and see that each of them is stored."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import click

from flixtrail.commands.options import state_option
from flixtrail.local.errors import DemoError

#: One made-up playback: a start, a progress report every 10 s of the video, an end.
REPORT_EVERY_S = 10
#: A request that is not accepted is repeated with the same ids for this long: a restarted broker needs ten seconds.
ACCEPT_DEADLINE_S = 60
#: How long nothing may be stored any more before we give up. A killed worker's messages come back after 15 s in
#: learner mode.
STORE_DEADLINE_S = 45
LOOK_EVERY_S = 0.1
REQUEST_TIMEOUT_S = 10
#: Answers that may be another one in a moment.
PASSING = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE}
IDS_A_QUERY = 10_000


@click.command()
@click.argument("number", metavar="N", type=click.IntRange(min=1))
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Views a second. [default: all at once]")
@click.option(
    "--batch", type=click.IntRange(1, 1000), help="Views in one request. [default: 10, or a tenth of a second]"
)
@state_option
def command(number: int, rate: float | None, batch: int | None, state: Path) -> None:
    """Record N views of made-up viewers, as their players would, and wait until all are stored.

    The last line is `accepted N stored N`. Exit status 1: less was stored than accepted.
    """
    from flixtrail.local.running import Running
    from flixtrail.local.state import State

    running = Running(State(state))
    sender = Sender(running.web_url, running.document["secret_key"])
    began = monotonic()
    accepted = sender.send(number, batch or max(1, min(1000, round((rate or 100) / 10))), rate)
    stored = wait_until_stored(running.database_url, accepted)
    took = monotonic() - began
    click.echo(f"{len(accepted)} views in {took:.1f} s ({len(accepted) / took:.0f} a second)")
    click.echo(f"accepted {len(accepted)} stored {stored}")
    sys.exit(0 if stored == len(accepted) == number else 1)


class Sender:
    """Posts views with an ingest token."""

    def __init__(self, web_url: str, secret_key: str) -> None:
        import urllib3

        from streaming_app.auth import Tokens

        self._url = web_url
        self._headers = {
            "Authorization": f"Bearer {Tokens(secret_key).ingest()}",
            "Content-Type": "application/json",
        }
        self._http = urllib3.PoolManager(timeout=REQUEST_TIMEOUT_S, retries=False)

    def send(self, number: int, batch: int, rate: float | None) -> list[str]:
        """Post that many views; the ids that were accepted. Raises DemoError when one request never is."""
        accepted: list[str] = []
        began = monotonic()
        with progress() as bar:
            task = bar.add_task("accepted", total=number)
            views = islice(playbacks(self._videos()), number)
            while some := list(islice(views, batch)):
                accepted += self._post(some)
                bar.update(task, completed=len(accepted))
                if rate:
                    sleep(max(0.0, began + len(accepted) / rate - monotonic()))
        return accepted

    def _videos(self) -> list[dict[str, Any]]:
        answer = self._request("GET", "/api/videos")
        videos: list[dict[str, Any]] = [video for video in answer.json()["videos"] if video.get("duration_s")]
        if not videos:
            raise DemoError("there is no video to view")
        return videos

    def _post(self, views: list[dict[str, Any]]) -> list[str]:
        """Post one batch until it is accepted: the same ids each time, which makes a repetition harmless."""
        ids: list[str] = self._request("POST", "/api/views", json.dumps(views)).json()["event_ids"]
        return ids

    def _request(self, method: str, path: str, body: str | None = None) -> Any:
        """The answer, once it is one of 2xx: a web server or a broker that was just killed is back in seconds."""
        import urllib3

        deadline = monotonic() + ACCEPT_DEADLINE_S
        while True:
            pause_s = 0.5
            try:
                answer = self._http.request(method, self._url + path, body=body, headers=self._headers)
            except urllib3.exceptions.HTTPError as error:
                reason = str(error)
            else:
                if answer.status < HTTPStatus.MULTIPLE_CHOICES:
                    return answer
                reason = f"{answer.status} {answer.data.decode(errors='replace')}"
                if answer.status not in PASSING:
                    raise DemoError(f"the streaming app refused {method} {path}: {reason}")
                pause_s = float(answer.headers.get("Retry-After", pause_s))
            if monotonic() > deadline:
                raise DemoError(f"{method} {path} did not succeed within {ACCEPT_DEADLINE_S} s: {reason}")
            sleep(pause_s)


def playbacks(videos: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Views without end: one viewer after another watches one video to its end."""
    from view_events.event import new_event_id

    viewer = 0
    while True:
        video = videos[viewer % len(videos)]
        viewer += 1
        duration_s = float(video["duration_s"])
        playback_id = str(uuid4())
        began = datetime.now(UTC) - timedelta(seconds=duration_s)
        marks = [min(float(mark), duration_s) for mark in range(0, int(duration_s) + REPORT_EVERY_S, REPORT_EVERY_S)]
        kinds = ["started", *["progress"] * (len(marks) - 2), "finished"]
        for before, mark, kind in zip([0.0, *marks], marks, kinds, strict=False):
            yield {
                "event_id": str(new_event_id()),
                "viewer_id": f"made-up-{viewer}",
                "video_id": video["id"],
                "playback_id": playback_id,
                "kind": kind,
                "position_s": mark,
                "played_from_s": before,
                "at": (began + timedelta(seconds=mark)).isoformat(),
            }


def wait_until_stored(database_url: str, ids: list[str]) -> int:
    """How many of these are stored, once all are, or once nothing has been added for STORE_DEADLINE_S."""
    from flixtrail.local.counts import History

    history = History(database_url)
    missing = list(ids)
    deadline = monotonic() + STORE_DEADLINE_S
    done = 0
    with progress() as bar:
        task = bar.add_task("stored", total=len(ids))
        while missing and monotonic() < deadline:
            # They are stored roughly in their order: ask for the oldest, and go on when all of those are there.
            first = missing[:IDS_A_QUERY]
            stored = history.stored_of(first) or 0
            if done + stored > bar.tasks[0].completed:
                bar.update(task, completed=done + stored)
                deadline = monotonic() + STORE_DEADLINE_S
            if stored == len(first):
                done += stored
                del missing[:IDS_A_QUERY]
            else:
                sleep(LOOK_EVERY_S)
    return int(bar.tasks[0].completed)


def progress() -> Any:
    """A bar on a terminal, nothing in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console()
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)
