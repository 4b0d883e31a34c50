"""`flixtrail send`: records N views over HTTP, and checks that each of them is stored."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from flixtrail.commands.options import Number
from local.errors import DemoError
from local.pasteable_commands import flixtrail_command
from local.printable import quantity, visible
from local.state_option import state_option
from service.waiting import wait_for_count, wait_until

if TYPE_CHECKING:
    from local.running_demo import RunningDemo

#: Seconds of video between two progress reports of a made-up playback. It also has a start and an end.
REPORT_EVERY_S = 10
#: Seconds for which a refused request is repeated with the same ids. A restarted broker needs ten seconds.
ACCEPT_TIMEOUT_S = 60
#: Seconds until the length of a first video must be known. If the process that reads it dies, another one begins after
#: streaming_app.videos.catalogue_store.CLAIM_S (20 s).
READING_TIMEOUT_S = 30
#: Seconds without any newly stored view after which the command gives up. In learner mode, a killed worker's messages
#: come back after 15 s.
STALL_TIMEOUT_S = 45
POLL_INTERVAL_S = 0.1
REQUEST_TIMEOUT_S = 10
#: Answers after which a retry may succeed.
RETRYABLE = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE}
IDS_PER_QUERY = 10_000
#: `--slow`: views per second, and their number if you give no N. This takes a minute: time to open a terminal and kill
#: a worker.
SLOW_RATE, SLOW_NUMBER = 20, 1_200


@click.command()
@click.argument("number", metavar="[N]", required=False, type=click.IntRange(1, 100_000_000))
@click.option("--rate", type=Number(0.01, 1_000_000), help="Views a second. [default: all at once]")
@click.option(
    "--batch", type=click.IntRange(1, 1000), help="Views in one request. [default: 10, or a tenth of a second]"
)
@click.option("--slow", is_flag=True, help=f"At human pace: {SLOW_RATE} a second, and each takes seconds to be stored.")
@state_option
def command(number: int | None, rate: float | None, batch: int | None, state: Path, *, slow: bool) -> None:
    """Record N views of made-up viewers, like their players, and wait until all are stored.

    The last line is `accepted N stored N`. Exit status 1: fewer views were stored than accepted.

    With --slow, the workers have unacknowledged messages all the time, so you can kill one that has some. N is then
    1,200 (a minute) by default. To slow the workers down, another transaction locks each view's row for up to four
    seconds, and the worker waits for it, as for a slow disk. This slows down nothing else in the demo.

    \b
    flixtrail send 1000
    flixtrail send --slow
    """  # noqa: D301 (click's \b)
    from local.running_demo import RunningDemo
    from local.state import State

    if slow and (rate is not None or batch is not None):
        raise click.UsageError("--slow has a pace of its own: without --rate and --batch.")
    if number is None and not slow:
        raise click.UsageError("Missing argument 'N': how many views?")
    running = RunningDemo(State(state))
    sender = Sender(running.web_url, running.document["secret_key"])
    began = monotonic()
    if slow:
        number = number or SLOW_NUMBER
        accepted = send_slowly(running, sender, number)
    else:
        assert number is not None  # noqa: S101 (checked above)
        accepted = sender.send(number, batch or max(1, min(1000, round((rate or 100) / 10))), rate)
    stored = wait_until_stored(running.database_url, accepted)
    took = monotonic() - began
    click.echo(f"{len(accepted)} views in {took:.1f} s ({len(accepted) / took:.0f} a second)")
    if stored < len(accepted):
        click.echo(describe_missing(running, len(accepted) - stored))
    click.echo(f"accepted {len(accepted)} stored {stored}")
    sys.exit(0 if stored == len(accepted) == number else 1)


def send_slowly(running: RunningDemo, sender: Sender, number: int) -> list[str]:
    """Post that many views slowly, with a progress bar. Returns their ids."""
    from local import slow_views

    accepted: list[str] = []
    click.echo(
        f"{number:,} views, {SLOW_RATE} a second: {number / SLOW_RATE:.0f} s. Kill a worker meanwhile, elsewhere:"
    )
    click.echo(f"  {flixtrail_command()} workers kill")
    with progress() as bar:
        views = bar.track(islice(one_view_per_viewer(sender.videos()), number), total=number, description="accepted")
        slow_views.send_slowly(running.database_url, sender.post, iter(views), SLOW_RATE, accepted)
    return accepted


def describe_missing(running: RunningDemo, missing: int) -> str:
    """Describe where the views are that were accepted and not stored yet. None of them is lost."""
    import sqlite3

    from local.errors import BrokerUnreachable
    from streaming_app.recording.outbox import waiting_in

    try:
        outbox = f"{quantity(waiting_in(running.state.outbox), 'view')} in the outbox (the streaming app's disk)"
    except sqlite3.Error:
        outbox = "the outbox cannot be read"
    try:
        figures = running.queue().figures()
        workers = f"{quantity(figures.unacked, 'message')} with workers"
        queue = f"{quantity(figures.ready, 'message')} in the queue, {workers}"
    except BrokerUnreachable:
        queue = "the broker does not answer and keeps the others"
    return (
        f"{quantity(missing, 'view')} still on their way: {outbox}; {queue}. They are stored as soon as everything "
        f"answers again. This shows how it goes on: {flixtrail_command()} watch"
    )


class Sender:
    """Posts views with an ingest token."""

    def __init__(self, web_url: str, secret_key: str) -> None:
        import urllib3

        from streaming_app.access.auth import Tokens

        self._url = web_url
        self._headers = {
            "Authorization": f"Bearer {Tokens(secret_key).ingest()}",
            "Content-Type": "application/json",
        }
        self._http = urllib3.PoolManager(timeout=REQUEST_TIMEOUT_S, retries=False)

    def send(self, number: int, batch: int, rate: float | None) -> list[str]:
        """Post that many views. Returns the accepted ids. Raises DemoError if a request is not accepted in time."""
        accepted: list[str] = []
        began = monotonic()
        with progress() as bar:
            task = bar.add_task("accepted", total=number)
            views = islice(playbacks(self.videos()), number)
            while some := list(islice(views, batch)):
                accepted += self.post(some)
                bar.update(task, completed=len(accepted))
                if rate:
                    sleep(max(0.0, began + len(accepted) / rate - monotonic()))
        return accepted

    def videos(self) -> list[dict[str, Any]]:
        """Return the videos whose length is known. After a start, the streaming app is still reading the files, so this
        waits for the first of them. Raises DemoError if there is none.
        """
        listed: list[dict[str, Any]] = []

        def readable() -> list[dict[str, Any]]:
            listed[:] = self._request("GET", "/api/videos").json()["videos"]
            return [video for video in listed if video.get("duration_s")]

        found = wait_until(readable, READING_TIMEOUT_S, poll_interval_s=0.5)
        if not found:
            raise DemoError(_nothing_to_view(len(listed)))
        return found

    def post(self, views: list[dict[str, Any]]) -> list[str]:
        """Post one batch until it is accepted. The ids stay the same, so a repetition does no harm."""
        ids: list[str] = self._request("POST", "/api/views", json.dumps(views)).json()["event_ids"]
        return ids

    def _request(self, method: str, path: str, body: str | None = None) -> Any:
        """Send a request until the answer is 2xx. A web server or a broker that was just killed is back
        within seconds.
        """
        import urllib3

        deadline = monotonic() + ACCEPT_TIMEOUT_S
        while True:
            pause_s = 0.5
            try:
                answer = self._http.request(method, self._url + path, body=body, headers=self._headers)
            except urllib3.exceptions.HTTPError as error:
                reason = str(error)
            else:
                if answer.status < HTTPStatus.MULTIPLE_CHOICES:
                    return answer
                reason = f"{answer.status} {visible(answer.data.decode(errors='replace'))}"
                if answer.status not in RETRYABLE:
                    raise DemoError(f"the streaming app refused {method} {path}: {reason}")
                pause_s = retry_after(answer.headers.get("Retry-After"), pause_s)
            if monotonic() > deadline:
                raise DemoError(f"{method} {path} did not succeed within {ACCEPT_TIMEOUT_S} s: {reason}")
            sleep(pause_s)


def _nothing_to_view(videos: int) -> str:
    if not videos:
        return "there is no video to view: the folder of videos is empty"
    return f"there is no video to view: after {READING_TIMEOUT_S} s, the length of none of {videos} is known"


def retry_after(said: str | None, usual_s: float) -> float:
    """Return the seconds to wait that an answer names, at most REQUEST_TIMEOUT_S. Without a usable value: `usual_s`."""
    if said is None or not (said.isascii() and said.isdigit()):
        return usual_s
    return min(float(said), REQUEST_TIMEOUT_S)


def one_view_per_viewer(videos: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield views without end, each of another viewer. So none waits for a worker that writes the same playback."""
    for view in playbacks(videos):
        if view["kind"] == "started":
            yield view


def playbacks(videos: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield views without end: one viewer after another watches one video to its end."""
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
    """Return how many of these are stored. Waits until all are, or until none was added for STALL_TIMEOUT_S."""
    from local.view_counts import History

    history = History(database_url)
    missing = list(ids)
    with closing(history), progress() as bar:
        task = bar.add_task("stored", total=len(ids))

        def count_stored() -> int:
            # They are stored roughly in order. So ask for the oldest, and continue when all of those are stored.
            stored = 0
            while missing and (stored := history.stored_of(missing[:IDS_PER_QUERY]) or 0) == len(
                missing[:IDS_PER_QUERY]
            ):
                del missing[:IDS_PER_QUERY]
                stored = 0
            stored += len(ids) - len(missing)
            if stored > bar.tasks[0].completed:
                bar.update(task, completed=stored)
            return stored

        return wait_for_count(count_stored, len(ids), STALL_TIMEOUT_S, poll_interval_s=POLL_INTERVAL_S)


def progress() -> Any:
    """Make a progress bar. It shows on a terminal only, not in a pipe."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console()
    shown = console.is_terminal and in_the_foreground()
    columns = (TextColumn("{task.description:>8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not shown)


def in_the_foreground() -> bool:
    """Return whether the terminal belongs to this program. After `send 1000 &` it belongs to the shell
    or to `watch`.
    """
    try:
        return os.tcgetpgrp(sys.stdout.fileno()) == os.getpgrp()
    except OSError:
        return False
