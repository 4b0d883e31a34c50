"""The viewer's place: what was played last and really played, whatever the file, the clock and the history do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Troubles
from tests.browser.playing import VIDEO, intervals, pause, play, position, seek, wait, watch, watched
from tests.browser.site import Site
from tests.waiting import until, until_equal
from view_events.event import event_id_time

pytestmark = pytest.mark.browser


def row(page: Page) -> list[str | None]:
    """Where the cards of "Continue watching" lead, on the library's page."""
    page.goto("/")
    page.wait_for_load_state("networkidle")
    return [link.get_attribute("href") for link in page.locator("#continue .row a").all()]


def _more_than(site: Site, count: int) -> bool:
    return len(site.events) > count


@pytest.mark.parametrize(("video_id", "start_s"), [("late", 3)])
def test_positions_count_from_the_first_picture(page: Page, site: Site, video_id: str, start_s: int) -> None:
    watch(page, video_id)
    wait(page, f"currentTime > {start_s - 0.1}")  # nobody has moved it: that is what this file is for
    page.evaluate("new Promise(requestAnimationFrame)")
    seek(page, start_s + 12)
    play(page, start_s + 13)
    place_s = pause(page) - start_s
    until_equal(lambda: len(site.events), 2, what="the views")
    assert site.events[-1].position_s == pytest.approx(place_s, abs=0.01)
    (link,) = row(page)
    assert link == f"/watch/{video_id}?t={int(place_s)}"
    for address in (link, f"/watch/{video_id}"):
        page.goto(address)
        wait(page, f"currentTime > {start_s + 12.5}")


def test_what_is_played_after_the_end_is_another_playback(page: Page, site: Site) -> None:
    watch(page, "clip-1")
    seek(page, 12)
    play(page, 14.9)
    until(lambda: "finished" in site.kinds(), what="the end")
    page.evaluate(f"{VIDEO}.play()")
    seek(page, 6)
    play(page, 9)
    place_s = pause(page)
    page.goto("/history")
    page.wait_for_load_state("networkidle")
    first, second = site.items(str(site.events[0].viewer_id), "clip-1")[::-1]
    assert (first["finished"], second["finished"]) == (True, False)
    assert row(page) == [f"/watch/clip-1?t={int(place_s)}"]


def test_a_looped_video_is_finished_once_and_its_rounds_after_that_are_one_playback(page: Page, site: Site) -> None:
    watch(page, "clip-1")
    page.evaluate(f"{VIDEO}.loop = true")
    for _ in range(3):
        seek(page, 12.5)
        play(page, 14)
        wait(page, "currentTime < 5")
    play(page, 1.5)  # of a fourth round that has hardly begun there would be nothing to report
    pause(page)
    until(lambda: len(site.events) > 5, what="the views")
    playbacks = site.items(str(site.events[0].viewer_id), "clip-1")
    assert [item["finished"] for item in playbacks] == [False, True]
    assert all(to - since < 4 for since, to in intervals(site.events)), "no interval goes through the jump"


def test_a_reload_goes_on_at_the_newest_place_also_while_the_history_is_away(
    page: Page, site: Site, troubles: Troubles
) -> None:
    troubles.tolerate("503")
    page.goto("/")
    watched(page, "clip-3", 9, ago=timedelta(minutes=5))
    watch(page, query="?t=9")
    wait(page, "currentTime === 9")
    seek(page, 19.5)
    play(page, 22)
    place = int(pause(page))
    site.history_away = True
    page.reload()
    expect(page.get_by_text(f"Continues at 0:{place}.")).to_be_visible()
    assert row(page) == [f"/watch/clip-3?t={place}"]
    site.history_away = False
    assert row(page) == [f"/watch/clip-3?t={place}"]
    until(lambda: page.evaluate("Object.keys(localStorage)") == [], what="the browser to leave it to the history")


def test_a_look_at_the_end_does_not_move_the_place(page: Page, site: Site) -> None:
    page.goto("/")
    watched(page, "clip-3", 12, ago=timedelta(minutes=5))
    watch(page)
    wait(page, "currentTime === 12")
    seek(page, 29)
    play(page, 29)
    wait(page, "ended")
    page.goto("/history")
    until(lambda: site.events[-1].position_s == 12, what="the place, after what was played of it")
    assert "finished" not in site.kinds()
    assert row(page) == ["/watch/clip-3?t=12"]


def test_a_jump_while_paused_does_not_move_the_place(page: Page, site: Site) -> None:
    watch(page)
    seek(page, 10)
    play(page, 12.5)
    place_s = pause(page)
    seek(page, 25)
    assert row(page) == [f"/watch/clip-3?t={int(place_s)}"]
    assert all(event.position_s < place_s + 0.01 for event in site.events)


def test_stopped_in_the_credits_is_finished_everywhere(page: Page) -> None:
    page.goto("/")
    watched(page, "clip-3", 28.8, ago=timedelta(minutes=5))
    watched(page, "clip-2", 18.5, ago=timedelta(minutes=9))
    assert row(page) == ["/watch/clip-2?t=18"]
    page.goto("/history")
    expect(page.locator(".entry").first).to_contain_text("Finished")
    with page.expect_response("**/api/history?*"):
        watch(page)
    play(page, 0.3)
    assert position(page) < 2


def test_a_recording_that_grows_is_not_finished_at_its_end(page: Page, site: Site, library: tuple[Path, Path]) -> None:
    watch(page, "late", "?t=99")
    wait(page, "seeking === false")
    until(lambda: 22 < position(page) < 27, what="a place before the end, where 99 s is not there yet")
    seek(page, 29.5)
    play(page, 31)
    with (library[0] / "late.mp4").open("ab") as file:
        file.write(b"\0\0\0\x08free")
    wait(page, "ended")
    expect(page.get_by_text("This recording goes on.")).to_be_visible()
    until(lambda: len(site.events) >= 2, what="the views")
    assert "finished" not in site.kinds()


@pytest.mark.parametrize(
    ("video_id", "text"),
    [("sound-only", "cannot show the picture of this video"), ("nothing", "cannot play this video")],
)
def test_a_video_that_the_browser_cannot_show_says_so_and_nothing_is_recorded(
    page: Page, site: Site, video_id: str, text: str
) -> None:
    page.goto(f"/watch/{video_id}")
    expect(page.get_by_text(text)).to_be_visible()
    page.evaluate(f"{VIDEO}.play().catch(() => null)")
    if video_id == "sound-only":
        wait(page, "currentTime > 1")
    page.goto("/history")
    expect(page.get_by_text("Nothing watched yet")).to_be_visible()
    assert site.posts == []


def test_the_space_bar_plays_and_pauses_unless_something_else_has_the_focus(page: Page) -> None:
    page.goto("/")
    watched(page, "clip-3", 12, ago=timedelta(minutes=5))
    watch(page)
    wait(page, "currentTime === 12")
    for focus in ("document.activeElement.blur()", "document.getElementById('main').focus()", f"{VIDEO}.focus()"):
        page.evaluate(focus)
        page.keyboard.press("Space")
        wait(page, "paused === false")
        page.keyboard.press("Space")
        wait(page, "paused")
    page.get_by_role("button", name="Start over").focus()
    page.keyboard.press("Space")
    wait(page, "currentTime < 1")
    assert page.evaluate(f"{VIDEO}.paused")


def test_a_clock_that_is_changed_and_a_computer_that_slept_hurt_no_view(page: Page, site: Site) -> None:
    page.add_init_script("""
        const [date, since] = [Date.now, performance.now.bind(performance)];
        window.aheadMs = window.sleptMs = 0;
        Date.now = () => date() + aheadMs;
        performance.now = () => since() - sleptMs;
    """)
    watch(page)
    play(page, 0.5)
    for trouble in (
        "window.aheadMs = 3 * 86_400_000",
        "window.aheadMs = -500 * 86_400_000",
        "window.sleptMs = 3_600_000",
    ):
        page.evaluate(trouble)
        count = len(site.events)
        pause(page)
        until(partial(_more_than, site, count), what="a view")
        play(page, position(page) + 0.3)
    pause(page)
    until_equal(lambda: len(site.events), 5, what="the last view")
    ids_in_order = [event.event_id for event in site.events]
    assert ids_in_order == [
        event.event_id for event in sorted(site.events, key=lambda event: (event.at, event.event_id))
    ]
    positions = [event.position_s for event in site.events]
    assert positions == sorted(positions)
    for event in site.events:
        assert abs(event.at - datetime.now(UTC)) < timedelta(seconds=20)
    last = event_id_time(site.events[-1].event_id)
    assert last is not None
    assert abs(last - datetime.now(UTC)) < timedelta(seconds=20), "measured again at the answer"


def test_ids_stay_in_order_and_are_well_formed_however_many_and_whatever_the_clock_does(page: Page) -> None:
    page.goto("/watch/clip-1")
    stamps: list[dict[str, Any]] = page.evaluate("""async () => {
        const { stamp, compare } = await import("/static/clock.js");
        const made = [];
        const answer = (ms) => ({ headers: new Headers({ Date: new Date(ms).toUTCString() }) });
        const make = (count) => { for (let n = 0; n < count; n++) made.push(stamp()); };
        make(10_000);
        compare(answer(Date.now()), performance.now());
        compare(answer(Date.now() - 3_600_000), performance.now());  // an hour back
        make(5_000);
        compare(answer(Date.now() + 7_200_000), performance.now());
        make(10);
        return made;
    }""")
    ids = [stamp["id"] for stamp in stamps]
    assert ids == sorted(set(ids))
    assert {len(one) for one in ids} == {36}
    assert [stamp["at"] for stamp in stamps] == sorted(stamp["at"] for stamp in stamps)
