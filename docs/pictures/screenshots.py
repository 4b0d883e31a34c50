"""`make screenshots`: the pictures of the README, from a stack that runs as docker-compose.yml starts it.

    docker compose up --build --wait -d --scale history-worker=4
    docker compose --profile observability up -d prometheus
    make screenshots                # PORT, FLOWER_PORT, PROMETHEUS_PORT, SECRET_KEY, FLOWER_PASSWORD as for compose

Somebody watches a clip in the browser, others send views; then each page is looked at. Needs chromium.
"""
# ruff: noqa: INP001 (a script beside the files it writes)

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import urllib3
from playwright.sync_api import Browser, Page, sync_playwright

from flixtrail.commands.send import playbacks
from streaming_app.access.auth import Tokens

FOLDER = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
WIDTH_PX, HEIGHT_PX = 1100, 680
#: Views of others, so that there is something to see: for a minute, some every second.
ROUNDS, VIEWS_A_ROUND = 60, 40


def setting(name: str, default: str) -> str:
    return os.environ.get(name) or default


SITE = f"http://127.0.0.1:{setting('PORT', '8000')}"
FLOWER = f"http://127.0.0.1:{setting('FLOWER_PORT', '5555')}"
PROMETHEUS = f"http://127.0.0.1:{setting('PROMETHEUS_PORT', '9090')}"


def send_views(page: Page) -> None:
    """What other viewers do, a round a second."""
    token = Tokens(setting("SECRET_KEY", "change-me-secret-key")).ingest()
    headers = {"Authorization": f"Bearer {token}"}
    videos = urllib3.request("GET", f"{SITE}/api/videos").json()["videos"]
    views: Iterator[dict[str, Any]] = playbacks(videos)
    for _ in range(ROUNDS):
        some = list(islice(views, VIEWS_A_ROUND))
        for part in (some[:1], some[1:3], some[3:]):
            urllib3.request("POST", f"{SITE}/api/views", json=part, headers=headers)
        page.wait_for_timeout(1_000)


def take(page: Page, name: str) -> None:
    path = FOLDER / f"{name}.png"
    page.screenshot(path=path)
    sys.stdout.write(f"{path.relative_to(FOLDER.parents[1])}: {path.stat().st_size:,} bytes\n")


def watch(browser: Browser) -> None:
    """A clip to its end, one to its middle, then the history of both."""
    page = browser.new_page(viewport={"width": WIDTH_PX, "height": HEIGHT_PX})
    for video_id, seconds in (("clip-1", 12), ("clip-3", 9)):
        page.goto(f"{SITE}/watch/{video_id}")
        page.locator("video").evaluate("video => { video.muted = true; return video.play() }")
        page.wait_for_timeout(seconds * 1_000)
    take(page, "player")
    page.goto(f"{SITE}/history")
    page.get_by_text("Ember").first.wait_for()
    page.wait_for_timeout(1_000)
    take(page, "history")
    page.close()


def monitors(browser: Browser) -> None:
    """Flower's workers, and Prometheus' own page of ours (deploy/prometheus/consoles)."""
    context = browser.new_context(
        viewport={"width": WIDTH_PX, "height": HEIGHT_PX},
        http_credentials={
            "username": "flixtrail",
            "password": setting("FLOWER_PASSWORD", "change-me-flower"),
            "origin": FLOWER,
        },
    )
    page = context.new_page()
    send_views(page)
    page.goto(f"{FLOWER}/")
    page.wait_for_timeout(2_000)
    take(page, "flower")
    page.goto(f"{PROMETHEUS}/consoles/flixtrail.html")
    take(page, "prometheus")
    context.close()


def main() -> None:
    if not Path(CHROMIUM).exists():
        sys.exit(f"{CHROMIUM} is needed: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--headless=new", "--mute-audio"]
        )
        watch(browser)
        monitors(browser)
        browser.close()


if __name__ == "__main__":
    main()
