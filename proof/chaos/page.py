"""A viewer in a real browser who watches while every part is killed, and the check of their history afterwards.

What really played is measured in the page, frame by frame, not by the player's own script. Whatever happens meanwhile
to the streaming app, the link to it, the clock and the file: in the end the history must have all of it, once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Any

from playwright.sync_api import Error, Page, sync_playwright

from proof.chaos.invariants import Violation
from proof.chaos.ledger import WATCHED_IN_A_BROWSER
from service.waiting import wait_until

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",  # containers run as root
    "--headless=new",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--mute-audio",
    "--autoplay-policy=no-user-gesture-required",
]
#: An MP4 box that players skip. With it, the copy of a sample is a different file.
PADDING = b"\0\0\0\x10freeflixtrai"

#: Seconds that one visit plays. A progress report comes every ten seconds, so only some visits have one.
VISIT_S = (4.0, 14.0)
#: Shares of the visits in which the viewer jumps to another position, and pauses for a moment.
JUMPS, PAUSES = 0.4, 0.3
#: Seconds until a page whose server is away is opened again.
RETRY_S = 1.0
STEP_TIMEOUT_MS = 8_000
POLL_INTERVAL_S = 0.25
#: Seconds after the last fault. The player's longest pause between two attempts is a minute.
SENT_S = 90
#: Seconds from the worker's commit to the page's history.
SHOWN_S = 30
#: With fewer seconds played, a run proves little about the page.
LEAST_PLAYED_S = 15
#: Seconds of a visit that may be missing: the frames between the last `timeupdate` and leaving the page.
SLACK_S = 0.6
#: A shorter stretch does not move the viewer's place (streaming_app/static/playback.js).
SHORT_STRETCH_S = 2.0

#: Runs in every page before its own scripts. It makes the clock adjustable and measures what really played.
SCRIPT = """
(() => {
  const Real = Date;
  let aheadMs = 0;
  class Clock extends Real {
    constructor(...parts) { if (parts.length) super(...parts); else super(Real.now() + aheadMs); }
    static now() { return Real.now() + aheadMs; }
  }
  globalThis.Date = Clock;
  const played = [];
  let last = null;
  const look = () => {
    const video = document.getElementById("player");
    const at = video && !video.paused && !video.seeking ? video.currentTime : null;
    if (at !== null && last !== null && at > last) {
      const open = played.at(-1);
      if (open && open[1] === last) open[1] = at; else played.push([last, at]);
    }
    last = at;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
  // However late the next frame is: what lies on the two sides of a jump was not played in between.
  document.addEventListener("seeking", () => { last = null; }, true);
  // Here and not from outside: a page plays on, and counts, until the next one has really replaced it.
  addEventListener("pagehide", () => {
    look();
    if (!played.length) return;
    const visits = JSON.parse(localStorage.getItem("measured") ?? "[]");
    visits.push({ played, leftAt: document.getElementById("player").currentTime });
    localStorage.setItem("measured", JSON.stringify(visits));
  });
  globalThis.measured = { setClock: (ms) => { aheadMs = ms; } };
})();
"""
#: What all pages measured.
VISITS = "() => JSON.parse(localStorage.getItem('measured') ?? '[]')"
#: `play()` does not end while no bytes come.
PLAY = "(ms) => Promise.race([player.play().catch(() => null), new Promise((done) => setTimeout(done, ms))])"


@dataclass(frozen=True)
class Visit:
    """What one visit really played (seconds of the video, from and to), and the position where it was left."""

    played: tuple[tuple[float, float], ...]
    left_at_s: float

    @property
    def seconds(self) -> float:
        return sum(to - since for since, to in self.played)

    @property
    def last_stretch_s(self) -> float:
        """The length of the last stretch in seconds. After a short one, the player keeps the earlier place."""
        since, to = self.played[-1]
        return to - since

    @property
    def distinct_seconds(self) -> float:
        """Count each second of the video once, however often it was played."""
        total, reached = 0.0, 0.0
        for since, to in sorted(self.played):
            total += max(to - max(since, reached), 0)
            reached = max(reached, to)
        return total


def own_video(sample: Path, folder: Path) -> Path:
    """Make a video for the page alone, in the library's folder."""
    path = folder / f"{WATCHED_IN_A_BROWSER}.mp4"
    path.write_bytes(sample.read_bytes() + PADDING)
    return path


class BrowserViewer:
    """Opens the player again and again, in its own thread, from `start` to `finish`.

    `visits` is what really played, `history` what the viewer's history says afterwards, and `failures` what went wrong
    with the browser itself.
    """

    def __init__(self, url: str, file: Path, seed: int) -> None:
        self.file = file
        self.visits: list[Visit] = []
        self.history: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self._url = url
        self._chance = Random(f"page {seed}")
        self._ahead_ms = 0.0
        self._finishing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """End the last visit, let the player send what it has stored, and read the history."""
        self._finishing.set()
        self._thread.join()

    def set_clock(self, ahead_s: float) -> None:
        """Set the page's clock ahead. It takes effect at the next check, even in an open page."""
        self._ahead_ms = ahead_s * 1000

    def violations(self) -> list[Violation]:
        """Return what was watched and is missing in the history, or is in it too often."""
        return [
            Violation("watched", WATCHED_IN_A_BROWSER, difference)
            for difference in differences(self.visits, self.history)
        ]

    def summary(self) -> str:
        """Return a summary in one line."""
        played_s = sum(visit.seconds for visit in self.visits)
        watched_s = sum(item["watched_s"] for item in self.history)
        return f"{len(self.visits)} visits played {played_s:.1f} s; the history has {watched_s:.1f} s"

    def complaints(self) -> list[str]:
        """Return the reasons why this run proves nothing about the page."""
        played_s = sum(visit.seconds for visit in self.visits)
        few = [] if played_s > LEAST_PLAYED_S else [f"only {played_s:.0f} s were played in the browser"]
        return [*self.failures, *few]

    # -- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
                context = browser.new_context()
                context.add_init_script(SCRIPT)
                context.set_default_timeout(STEP_TIMEOUT_MS)
                page = context.new_page()
                while not self._finishing.is_set():
                    self._visit(page)
                self._send_all(page)
                browser.close()
        except Exception as error:  # noqa: BLE001 (whatever it is: this run proves nothing about the page)
            self.failures.append(f"the browser: {type(error).__name__}: {error}")

    def _visit(self, page: Page) -> None:
        if not self._open(page, f"/watch/{WATCHED_IN_A_BROWSER}") or not self._plays(page):
            self._finishing.wait(RETRY_S)
            return
        until = monotonic() + self._chance.uniform(*VISIT_S)
        jump_at = until - 3 if self._chance.random() < JUMPS else None
        pause_at = until - 2 if self._chance.random() < PAUSES else None
        while monotonic() < until and not self._finishing.is_set():
            self._set_clock(page)
            if jump_at and monotonic() > jump_at:
                page.evaluate("(share) => { player.currentTime = share * player.duration; }", self._chance.random())
                jump_at = None
            if pause_at and monotonic() > pause_at:
                page.evaluate("() => { player.pause(); setTimeout(() => player.play(), 500); }")
                pause_at = None
            sleep(POLL_INTERVAL_S)
        self._open(page, "/")

    def _open(self, page: Page, path: str) -> bool:
        try:
            answer = page.goto(self._url + path, wait_until="domcontentloaded")
            self._set_clock(page)
        except Error:
            return False
        return bool(answer and answer.ok)

    def _plays(self, page: Page) -> bool:
        """Return whether the video plays within STEP_TIMEOUT_MS. Its bytes may not come, or its file may be away."""
        try:
            page.evaluate("() => { globalThis.player = document.getElementById('player'); player.muted = true; }")
            page.evaluate(PLAY, STEP_TIMEOUT_MS)
            return bool(page.evaluate("() => !player.paused"))
        except Error:
            return False

    def _set_clock(self, page: Page) -> None:
        page.evaluate("(ms) => measured.setClock(ms)", self._ahead_ms)

    # -- the end ----------------------------------------------------------------------------------------

    def _send_all(self, page: Page) -> None:
        """Make the player send everything that it has stored, by opening the library once more. Then check the
        history against what all pages measured.
        """
        wait_until(lambda: self._open(page, "/"), SENT_S, poll_interval_s=POLL_INTERVAL_S)
        self.visits = [
            Visit(tuple((since, to) for since, to in visit["played"]), visit["leftAt"])
            for visit in page.evaluate(VISITS)
        ]
        if not wait_until(lambda: self._kept(page) == 0, SENT_S, poll_interval_s=POLL_INTERVAL_S):
            self.failures.append(f"{self._kept(page)} views are kept in the browser after {SENT_S} s")
        if refused := self._kept(page, "flixtrail.refused."):
            self.failures.append(f"{refused} views were refused for good")
        wait_until(lambda: self._read(page), SHOWN_S, poll_interval_s=POLL_INTERVAL_S)

    @staticmethod
    def _kept(page: Page, prefix: str = "flixtrail.view.") -> int:
        return int(
            page.evaluate("(start) => Object.keys(localStorage).filter((k) => k.startsWith(start)).length", prefix)
        )

    def _read(self, page: Page) -> bool:
        """Read the history. Returns whether nothing is missing in it any more."""
        try:
            answer = page.request.get(f"{self._url}/api/history?limit=100&video_id={WATCHED_IN_A_BROWSER}")
            self.history = answer.json()["items"]
        except (Error, ValueError, KeyError):
            return False
        return not list(differences(self.visits, self.history))


def differences(visits: list[Visit], history: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what is missing, too much or wrong in the history."""
    watched_s = sum(item["watched_s"] for item in history)
    least_s = sum(max(visit.distinct_seconds - SLACK_S, 0) for visit in visits)
    most_s = sum(visit.seconds + SLACK_S for visit in visits)
    if watched_s < least_s:
        yield f"{least_s:.1f} s really played in {len(visits)} visits, and the history has {watched_s:.1f} s"
    if watched_s > most_s:
        yield f"no more than {most_s:.1f} s played in {len(visits)} visits, and the history has {watched_s:.1f} s"
    if visits and history and not history[0]["finished"] and visits[-1].last_stretch_s > SHORT_STRETCH_S + SLACK_S:
        at_s, left_at_s = history[0]["position_s"], visits[-1].left_at_s
        if abs(at_s - left_at_s) > SLACK_S:
            yield f"left at {left_at_s:.1f} s, and the history says {at_s:.1f} s"
