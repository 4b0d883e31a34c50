"""A real browser: Debian's chromium, headless, driven by Playwright. No browser is ever downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from proof.chaos.page import ARGUMENTS, CHROMIUM
from tests.browser.site import Site, running_site
from tests.clips import make_clip, make_film, make_unshowable

#: Milliseconds that one step in the browser may take.
STEP_TIMEOUT_MS = 10_000


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        reason = f"needs {CHROMIUM} (apt-get install chromium)"
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    expect.set_options(timeout=STEP_TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> tuple[Path, Path]:
    """(videos, cache): the sample clips, a broken file, one whose title is markup, and some that are hard to play."""
    cache = tmp_path_factory.mktemp("cache")
    videos = tmp_path_factory.mktemp("videos")
    for clip in clips.iterdir():
        shutil.copy(clip, videos)
    make_clip(videos / "markup.mp4", title="<script>alert(1)</script> & a title that is long enough for two lines")
    make_film(videos / "late.mp4", seconds=30, starts_at_s=3)
    make_unshowable(videos / "sound-only.mp4", with_sound=True)
    make_unshowable(videos / "nothing.mp4", with_sound=False)
    (videos / "Broken recording.mkv").write_bytes(b"no video at all" * 100)
    return videos, cache


@pytest.fixture
def site(library: tuple[Path, Path], tmp_path: Path) -> Iterator[Site]:
    # An outbox of its own: what a test leaves in it, the next one would adopt.
    with running_site(*library, tmp_path / "outbox") as site:
        yield site


class Troubles:
    """What the console complained about (a violated policy is among it), and what scripts did not catch."""

    def __init__(self) -> None:
        self._seen: list[str] = []
        #: A poster that is still being made is answered 503; the page asks for it again.
        self._tolerated: tuple[str, ...] = ("/poster'",)

    def tolerate(self, *texts: str) -> None:
        """Expect complaints with these words in them: a browser complains about every failed request."""
        self._tolerated += texts

    def watch(self, context: BrowserContext) -> None:
        context.on("console", self._console)
        context.on("weberror", lambda error: self._seen.append(str(error.error)))

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self._seen.append(f"{message.text} at {message.location}")

    @property
    def unexpected(self) -> list[str]:
        return [text for text in self._seen if not any(words in text for words in self._tolerated)]


@pytest.fixture
def troubles() -> Iterator[Troubles]:
    troubles = Troubles()
    yield troubles
    assert troubles.unexpected == []


@pytest.fixture
def context(chromium: Browser, site: Site, troubles: Troubles) -> Iterator[BrowserContext]:
    """A fresh viewer."""
    context = chromium.new_context(base_url=site.url, locale="en-GB", timezone_id="UTC")
    context.set_default_timeout(STEP_TIMEOUT_MS)
    troubles.watch(context)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()
