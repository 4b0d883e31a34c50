"""The player reports what is really played, and goes on where the viewer stopped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Troubles
from tests.browser.playing import VIDEO, intervals, kept, pause, play, position, seek, wait, watch, watched
from tests.browser.site import Site
from tests.waiting import until, until_equal
from view_events.event import event_id_time

pytestmark = pytest.mark.browser


@pytest.mark.slow
def test_a_clip_played_to_its_end_is_started_in_progress_and_finished(page: Page, site: Site) -> None:
    watch(page, "clip-1")
    play(page, 0)
    until(lambda: "finished" in site.kinds(), timeout_s=25, what="the clip to end")
    assert site.kinds() == ["started", "progress", "finished"]
    started, progress, finished = site.events
    assert {event.playback_id for event in site.events} == {started.playback_id}
    assert started.position_s < 0.5
    assert started.played_from_s is None
    assert progress.position_s == pytest.approx(10, abs=1), "a progress every ten seconds"
    assert progress.played_from_s == started.position_s
    assert finished.position_s == pytest.approx(15, abs=0.2)
    assert finished.played_from_s == started.position_s, "one interval: nobody seeked"
    until(lambda: kept(page) == [], what="the store to be empty")


def test_a_seek_ends_one_interval_and_begins_another(page: Page, site: Site) -> None:
    watch(page)
    play(page, 1.5)
    before = position(page)
    seek(page, 20)
    play(page, 21)
    end = pause(page)
    until(lambda: len(intervals(site.events)) == 2, what="two intervals")
    first, second = intervals(site.events)
    assert first == pytest.approx((0, before), abs=0.5)
    assert first[1] < 5, "it ends where the picture was before the seek, not where it went"
    assert second == pytest.approx((20, end), abs=0.3)


def test_dragging_the_slider_is_a_seek_although_the_player_pauses_first(page: Page) -> None:
    watch(page)
    play(page, 1)
    # What Chrome's own slider does. `pause` is told when `currentTime` is already where the drag goes.
    with page.expect_request("**/api/views") as posted:
        page.evaluate(f"{VIDEO}.pause(); {VIDEO}.currentTime = 20")
    (event,) = posted.value.post_data_json or []
    assert event["kind"] == "progress"
    assert event["position_s"] == pytest.approx(1, abs=0.8)


def test_a_player_that_lands_elsewhere_than_it_was_asked_is_believed(page: Page, site: Site) -> None:
    watch(page)
    play(page, 0.5)
    # As with fastSeek in Safari: the wish is seen during the seek, where it came to only after it.
    page.evaluate("""() => {
        const { get, set } = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, "currentTime");
        Object.defineProperty(document.getElementById("player"), "currentTime", {
            get() { return get.call(this) + (this.seeking ? 4 : 0); },
            set(seconds) { set.call(this, seconds); },
        });
    }""")
    seek(page, 10)
    play(page, 15)
    pause(page)
    until(lambda: len(intervals(site.events)) == 2, what="two intervals")
    assert intervals(site.events)[1][0] == pytest.approx(10, abs=0.3)


def test_jumping_about_while_paused_counts_as_nothing_played(page: Page, site: Site) -> None:
    watch(page)
    play(page, 0.5)
    pause(page)
    for second in (5, 25, 12):
        seek(page, second)
    page.goto("/history")
    until(lambda: kept(page) == [], what="the store to be empty")
    assert site.kinds() == ["started", "progress"]
    assert [to - since for since, to in intervals(site.events)] == [pytest.approx(0.5, abs=0.4)]


def test_a_page_that_is_only_opened_records_nothing(page: Page, site: Site) -> None:
    watch(page)
    page.goto("/history")
    expect(page.get_by_text("Nothing watched yet")).to_be_visible()
    assert site.posts == []


def test_a_clip_that_was_left_goes_on_where_it_was(page: Page) -> None:
    watch(page)
    seek(page, 12)
    play(page, 13)
    page.goto("/")
    expect(page.get_by_role("heading", name="Continue watching")).to_be_visible()
    page.locator("#continue").get_by_role("link", name="Ember").click()
    page.wait_for_url("**/watch/clip-3?t=13")

    watch(page)
    expect(page.get_by_text("Continues at 0:13.")).to_be_visible()
    assert position(page) == pytest.approx(13, abs=1)
    page.get_by_role("button", name="Start over").click()
    wait(page, "currentTime === 0")


def test_a_reload_goes_on_although_the_history_does_not_know_the_last_second_yet(
    page: Page, site: Site, troubles: Troubles
) -> None:
    troubles.tolerate("503")
    watch(page)
    seek(page, 12)
    play(page, 13)
    site.history_away = True
    page.reload()
    expect(page.get_by_text("Continues at 0:13.")).to_be_visible()


def test_a_start_in_the_address_wins(page: Page) -> None:
    page.goto("/")
    watched(page, "clip-3", 12, ago=timedelta(minutes=5))
    watch(page, query="?t=7")
    wait(page, "currentTime === 7")
    expect(page.locator("#resume")).to_be_hidden()


@pytest.mark.parametrize(("position_s", "finished"), [(30.0, True), (4.0, False)])
def test_what_was_finished_or_hardly_begun_starts_from_the_beginning(
    page: Page, position_s: float, *, finished: bool
) -> None:
    page.goto("/")
    watched(page, "clip-3", 12, ago=timedelta(minutes=5))
    watched(page, "clip-3", position_s, finished=finished, ago=timedelta(minutes=2))
    with page.expect_response("**/api/history?*"):
        watch(page)
    play(page, 0.3)
    assert position(page) < 2
    expect(page.locator("#resume")).to_be_hidden()


def test_a_viewer_who_was_quicker_than_the_history_is_asked_and_not_moved(page: Page) -> None:
    page.goto("/")
    watched(page, "clip-3", 12, ago=timedelta(minutes=5))
    held: list[Route] = []
    page.route("**/api/history?*", lambda route: held.append(route))  # noqa: PLW0108 (playwright marks what it is given)
    watch(page)
    play(page, 0.5)
    held.pop().continue_()
    expect(page.get_by_text("You stopped at 0:12.")).to_be_visible()
    assert position(page) < 8
    page.get_by_role("button", name="Continue there").click()
    wait(page, "currentTime >= 12")


@pytest.mark.parametrize("days_off", [-500, 3])
def test_a_browser_whose_clock_is_wrong_is_recorded_at_the_right_time(page: Page, site: Site, days_off: int) -> None:
    page.add_init_script(f"const right = Date.now; Date.now = () => right() + {days_off} * 86_400_000")
    watch(page)
    play(page, 0.5)
    pause(page)
    until_equal(site.kinds, ["started", "progress"], what="the views")
    for event in site.events:
        for time in (event.at, event_id_time(event.event_id)):
            assert time is not None
            assert abs(time - datetime.now(UTC)) < timedelta(seconds=20)


def test_a_tab_put_aside_reports_at_once(page: Page, site: Site) -> None:
    watch(page)
    play(page, 1)
    # A headless browser never hides a page by itself: the page is told so, as a browser would.
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    until(lambda: "progress" in site.kinds(), timeout_s=5, what="a beacon")
