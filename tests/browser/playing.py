"""What somebody does with the player, and what lies in the browser's store."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from playwright.sync_api import Page

from tests.client import a_view
from tests.waiting import until
from view_events.event import ViewEvent

VIDEO = "document.getElementById('player')"


def watch(page: Page, video_id: str = "clip-3", query: str = "") -> None:
    page.goto(f"/watch/{video_id}{query}")
    wait(page, "readyState >= 3")


def wait(page: Page, state: str) -> None:
    """Wait for the video to be so, say `currentTime >= 3`."""
    # Not page.wait_for_function: it evaluates text inside the page, which the page's policy rightly refuses.
    until(lambda: page.evaluate(f"{VIDEO}.{state}"), what=f"video.{state}")


def play(page: Page, until_s: float) -> None:
    """Play until the video has come to this second; it goes on playing."""
    page.evaluate(f"{VIDEO}.play()")
    wait(page, f"currentTime >= {until_s}")


def pause(page: Page) -> float:
    """Pause; the position, in seconds."""
    page.evaluate(f"{VIDEO}.pause()")
    return position(page)


def seek(page: Page, to_s: float) -> None:
    page.evaluate(f"{VIDEO}.currentTime = {to_s}")
    wait(page, "seeking === false")


def position(page: Page) -> float:
    found: float = page.evaluate(f"{VIDEO}.currentTime")
    return found


def kept(page: Page) -> list[dict[str, Any]]:
    """The events in the browser's store, oldest first."""
    return [json.loads(text) for text in stored(page, "flixtrail.view.").values()]


def refused(page: Page) -> list[str]:
    """Why the server refused for good what the browser has set aside, oldest first."""
    return [json.loads(text)["reason"] for text in stored(page, "flixtrail.refused.").values()]


def stored(page: Page, prefix: str) -> dict[str, str]:
    """What lies in the browser's store under keys with this prefix, in their order."""
    found: dict[str, str] = page.evaluate("() => ({...localStorage})")
    return {key: found[key] for key in sorted(found) if key.startswith(prefix)}


def keep(page: Page, *events: dict[str, Any]) -> None:
    """Put events into the store, as an earlier page would have left them."""
    texts = {f"flixtrail.view.{event['event_id']}": json.dumps(event) for event in events}
    page.evaluate("(texts) => Object.entries(texts).forEach(([key, text]) => localStorage.setItem(key, text))", texts)


def watched(page: Page, video_id: str, position_s: float, *, finished: bool = False, ago: timedelta) -> None:
    """Report an earlier playback of the page's viewer."""
    common = {"video_id": video_id, "playback_id": str(uuid4())}
    began = datetime.now(UTC) - ago
    ended = began + timedelta(seconds=position_s)
    views = [
        a_view(kind="started", position_s=0, at=began.isoformat(), **common),
        a_view(
            kind="finished" if finished else "progress",
            position_s=position_s,
            played_from_s=0,
            at=ended.isoformat(),
            **common,
        ),
    ]
    answer = page.request.post("/api/views", data=views)
    assert answer.status == 202, answer.text()


def intervals(events: list[ViewEvent]) -> list[tuple[float, float]]:
    """What was really played, as (from, to) in seconds, in the order it was reported."""
    return [(event.played_from_s, event.position_s) for event in events if event.played_from_s is not None]
