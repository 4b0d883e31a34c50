"""What was not accepted stays in the browser and is sent again, with the same ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from wsgiref.types import WSGIEnvironment

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import Troubles
from tests.browser.playing import keep, kept, pause, play, refused, stored, watch
from tests.browser.site import Answer, Posted, Site
from tests.client import a_view
from tests.fakes import ids
from tests.waiting import until, until_equal
from view_events.event import first_id

pytestmark = pytest.mark.browser

#: A page of this site without a script, to put things into the store before one runs.
BARE = "/healthz"
AWAY = "Recording is away just now."
#: Requests that a browser was refused, in its console.
REFUSED = "Failed to load resource"


def refuse_first(*answers: Answer) -> Any:
    """Give these answers to the first requests, and leave the others alone."""
    remaining = list(answers)
    return lambda _posted: remaining.pop(0) if remaining else None


def sent_ids(posted: Posted) -> list[str]:
    return [event["event_id"] for event in posted]


#: The first is none of ours: it names no event.
NOT_NOW = ["202 Accepted", "503 Service Unavailable", "429 Too Many Requests", "500 Oops", "408 Late"]


@pytest.mark.parametrize("status", NOT_NOW)
def test_what_was_refused_is_sent_again_with_the_same_ids(
    page: Page, site: Site, troubles: Troubles, status: str
) -> None:
    troubles.tolerate("Failed to load resource")
    site.refuse = refuse_first((status, {}))
    watch(page)
    play(page, 0.3)
    expect(page.get_by_text(AWAY)).to_be_visible()
    assert [event["kind"] for event in kept(page)] == ["started"]
    until(lambda: site.events, what="the views to be sent again")
    assert sent_ids(site.posts[0][1]) == ids(site.events)[:1]
    expect(page.get_by_text(AWAY)).to_be_hidden()
    until(lambda: kept(page) == [], what="the store to be empty")


def test_a_server_that_cannot_accept_loses_nothing(page: Page, site: Site, troubles: Troubles) -> None:
    troubles.tolerate("503")
    site.refuse = lambda _posted: ("503 Service Unavailable", {"Retry-After": "1"})  # broker away, outbox full
    watch(page)
    play(page, 0.5)
    pause(page)
    expect(page.get_by_text(AWAY)).to_be_visible()
    before = [event["event_id"] for event in kept(page)]
    assert len(before) == 2
    site.refuse = lambda _posted: None
    until(lambda: ids(site.events) == before, what="both views")


def test_a_pause_that_the_server_asks_for_is_kept(page: Page, site: Site, troubles: Troubles) -> None:
    troubles.tolerate("429")
    site.refuse = refuse_first(("429 Too Many Requests", {"Retry-After": "3"}))
    watch(page)
    play(page, 0.5)
    pause(page)  # something new to send, which waits too
    until_equal(lambda: len(site.events), 2, what="the views")
    (first, _), (second, posted) = site.posts
    assert second - first >= 3
    assert len(posted) == 2


def test_a_network_that_comes_back_is_used_at_once(
    page: Page, context: BrowserContext, site: Site, troubles: Troubles
) -> None:
    troubles.tolerate("ERR_INTERNET_DISCONNECTED")
    page.clock.install()
    watch(page)
    context.set_offline(True)
    page.clock.pause_at(datetime.now(UTC) + timedelta(minutes=1))  # no timer runs any longer
    play(page, 0.3)
    expect(page.get_by_text(AWAY)).to_be_visible()
    assert site.posts == []
    context.set_offline(False)
    until_equal(site.kinds, ["started"], timeout_s=5, what="the view")


def test_a_422_sets_aside_what_it_names_and_sends_the_others(page: Page, site: Site, troubles: Troubles) -> None:
    troubles.tolerate("422")
    page.goto(BARE)
    good = [a_view(position_s=float(second)) for second in range(3)]
    long_ago = str(UUID(int=first_id(datetime.now(UTC) - timedelta(days=401)).int | 7 << 76 | 2 << 62))
    bad = [a_view(video_id="left-the-library"), a_view(position_s=-1), a_view(event_id=long_ago)]
    keep(page, good[0], bad[0], good[1], bad[1], good[2], bad[2])
    page.goto("/history")
    until_equal(lambda: len(site.events), 3, what="the good ones")
    assert set(ids(site.events)) == {event["event_id"] for event in good}
    note = page.get_by_role("alert")
    expect(note).to_contain_text("The server cannot record 3 views of yours.")
    expect(note).to_contain_text("No video 'left-the-library' in the catalogue")
    expect(note).to_contain_text("more than 400 days ago")
    assert kept(page) == []
    assert len(refused(page)) == 3
    page.goto("/watch/clip-1")  # nobody has said yet that it was seen
    page.get_by_role("button", name="Forget them").click()
    expect(note).to_be_hidden()
    assert refused(page) == []


def test_what_was_refused_can_be_sent_again(page: Page, site: Site, troubles: Troubles) -> None:
    troubles.tolerate("422")
    page.goto(BARE)
    keep(page, view := a_view())
    error = '{"errors": [{"index": 0, "field": "video_id", "message": "The server was put back to last year"}]}'
    site.refuse = lambda _posted: ("422 Unprocessable Content", {"Content-Type": "application/problem+json"}, error)
    page.goto("/")
    expect(page.get_by_role("alert")).to_contain_text("The server was put back to last year")
    site.refuse = lambda _posted: None
    page.get_by_role("button", name="Try again").click()
    until(lambda: ids(site.events) == [view["event_id"]], what="the view")
    expect(page.get_by_role("alert")).to_be_hidden()


@pytest.mark.parametrize("status", [413, 400, 415, 403])
def test_one_event_that_nobody_can_take_is_found_and_does_not_hold_up_the_others(
    page: Page, site: Site, troubles: Troubles, status: int
) -> None:
    troubles.tolerate(REFUSED)
    page.goto(BARE)
    views = [a_view(position_s=float(second)) for second in range(150)]
    poison = views[6]["event_id"]
    site.refuse = lambda posted: (f"{status} No", {}) if poison in sent_ids(posted) else None
    keep(page, *views)
    page.goto("/history")
    until_equal(lambda: len(site.events), 149, what="the good ones")
    until(lambda: kept(page) == [], what="the poisonous one to be set aside")
    assert refused(page) == [f"The server refused them, with status {status}."]
    assert len(site.posts) < 30, "requests grow again once they work"


def test_a_server_that_breaks_at_one_event_takes_the_others(page: Page, site: Site, troubles: Troubles) -> None:
    troubles.tolerate(REFUSED)
    page.clock.install()
    page.goto(BARE)
    views = [a_view() for _ in range(3)]
    site.refuse = lambda posted: ("500 Oops", {}) if views[0]["event_id"] in sent_ids(posted) else None
    keep(page, *views)
    page.goto("/history")

    def others_are_there() -> bool:
        page.clock.fast_forward(5_000)  # it is first taken for an outage
        return len(site.events) == 2

    until(others_are_there, what="the others")
    until(lambda: len(refused(page)) == 1, what="the one that breaks it to be set aside")


@pytest.mark.parametrize("status", ["403 Forbidden", "415 Unsupported Media Type", "404 Not Found"])
def test_a_server_that_takes_nothing_from_this_page_says_why_and_nothing_is_deleted(
    page: Page, site: Site, troubles: Troubles, status: str
) -> None:
    troubles.tolerate(REFUSED)
    page.clock.install()
    page.goto(BARE)
    keep(page, a_view())
    detail = {"Content-Type": "application/problem+json"}, '{"detail": "A sentence for the viewer."}'
    site.refuse = lambda _posted: (status, *detail)
    watch(page)
    play(page, 0.5)
    pause(page)
    expect(page.locator("#recording")).to_contain_text("A sentence for the viewer.")
    until_equal(lambda: len(kept(page)), 3, what="the views to be kept")
    assert refused(page) == []
    page.clock.fast_forward(50_000)
    page.evaluate("fetch('/healthz')")  # whatever was sent before has arrived
    assert len(site.posts) < 8, "it is not argued with"
    site.refuse = lambda _posted: None
    page.clock.fast_forward(60_000)
    until_equal(lambda: len(site.events), 3, what="the page to try again after a while")
    expect(page.locator("#recording")).to_be_empty()


def test_a_page_whose_views_are_refused_says_so_before_anything_is_played(
    page: Page, site: Site, troubles: Troubles
) -> None:
    troubles.tolerate(REFUSED)
    site.on_the_way = _takes_out_all_that_tells_our_pages
    page.goto("/watch/clip-3")
    expect(page.locator("#recording")).to_contain_text("The server does not recognise this page as its own")
    expect(page.locator("#recording")).to_contain_text("is kept in this browser")
    play(page, 0.3)
    pause(page)
    until_equal(lambda: len(kept(page)), 2, what="the views to be kept")


def _takes_out_all_that_tells_our_pages(environ: WSGIEnvironment) -> None:
    _takes_out_what_browsers_say(environ)
    environ["HTTP_PAGE_TOKEN"] = ""


def _takes_out_what_browsers_say(environ: WSGIEnvironment) -> None:
    environ.pop("HTTP_SEC_FETCH_SITE", None)
    environ["HTTP_ORIGIN"] = "https://elsewhere.example"


def test_a_page_that_was_opened_under_another_cookie_gets_a_new_token(
    page: Page, context: BrowserContext, site: Site, troubles: Troubles
) -> None:
    troubles.tolerate("403")
    site.on_the_way = _takes_out_what_browsers_say
    watch(page)
    context.clear_cookies()
    context.new_page().goto("/")
    play(page, 0.3)
    until_equal(site.kinds, ["started"], what="the view")
    assert len(site.posts) == 2


def test_what_a_beacon_carried_stays_until_the_next_page_has_it_confirmed(page: Page, site: Site) -> None:
    watch(page)
    play(page, 0.5)
    until(lambda: kept(page) == [], what="`started` to be accepted")
    page.goto("about:blank")
    until_equal(site.kinds, ["started", "progress"], what="the beacon")
    page.goto("/history")
    until(lambda: len(site.posts) == 3 and kept(page) == [], what="the confirmation")
    assert sent_ids(site.posts[2][1]) == sent_ids(site.posts[1][1])
    assert site.kinds() == ["started", "progress"]


def test_a_beacon_carries_the_newest_that_a_browser_lets_it(page: Page, site: Site, troubles: Troubles) -> None:
    troubles.tolerate("503")
    site.refuse = lambda _posted: ("503 Service Unavailable", {})
    page.goto(BARE)
    keep(page, *(a_view() for _ in range(900)))
    watch(page)
    play(page, 0.5)
    site.refuse = lambda _posted: None
    page.goto("about:blank")
    until(lambda: site.events, what="the beacon")
    assert 50 < len(site.posts[-1][1]) < 900
    assert site.kinds()[-2:] == ["started", "progress"]


def test_a_backlog_is_sent_in_hundreds_as_fast_as_the_server_lets_it(
    page: Page, site: Site, troubles: Troubles
) -> None:
    troubles.tolerate("429")
    page.clock.install()
    page.goto(BARE)
    views = [a_view(position_s=float(second)) for second in range(650)]
    keep(page, *views)
    page.goto("/history")

    def all_are_there() -> bool:
        page.clock.fast_forward(1_000)
        return len(site.events) == 650

    until(
        all_are_there, timeout_s=30, what="all of them", every_s=1
    )  # the server's limits: 300 at once, then 10 a second
    assert {len(posted) for _, posted in site.posts} <= {100, 50}
    until(lambda: kept(page) == [], what="the store to be empty")
    assert refused(page) == []


def test_nothing_is_dropped_however_much_is_kept(page: Page, site: Site, troubles: Troubles) -> None:
    troubles.tolerate("503")
    site.refuse = lambda _posted: ("503 Service Unavailable", {})
    page.goto(BARE)
    keep(page, *(a_view(playback_id=str(uuid4())) for _ in range(6_000)))
    before = set(stored(page, "flixtrail.view."))
    watch(page)
    play(page, 0.3)
    until(lambda: len(stored(page, "flixtrail.view.")) == 6_001, what="the new view")
    assert before < set(stored(page, "flixtrail.view."))


def test_a_full_store_makes_room_and_says_what_will_be_lost(page: Page, site: Site, troubles: Troubles) -> None:
    troubles.tolerate("503")
    site.refuse = lambda _posted: ("503 Service Unavailable", {})
    page.goto(BARE)
    same = {"playback_id": str(uuid4()), "played_from_s": 0.0}
    views = [a_view(position_s=float(second), **same) for second in range(1, 6)]
    keep(page, *views)
    fill = """() => {
        for (let size = 4_000_000, n = 0; size >= 1; ) {
            try { localStorage.setItem(`other ${n++}`, "x".repeat(size)); } catch { size = Math.floor(size / 2); }
        }
    }"""
    page.evaluate(fill)
    watch(page)
    play(page, 0.3)
    until_equal(lambda: len(kept(page)), 2, what="room for the new view")
    assert kept(page)[0] == views[-1], "the last of a stretch says all of it"
    page.evaluate(fill)
    pause(page)
    expect(page.get_by_text("1 view will be lost if you close this page")).to_be_visible()
    site.refuse = lambda _posted: None
    until_equal(lambda: len(site.events), 3, what="all of it")


def test_two_tabs_share_the_store_and_nothing_is_lost(
    page: Page, context: BrowserContext, site: Site, troubles: Troubles
) -> None:
    troubles.tolerate("503")
    site.refuse = lambda _posted: ("503 Service Unavailable", {})
    other = context.new_page()
    for tab, video_id in ((page, "clip-2"), (other, "clip-3")):
        watch(tab, video_id)
        play(tab, 0.3)
        pause(tab)
    until_equal(lambda: len(kept(page)), 4, what="both tabs' views in one store")
    before = [event["event_id"] for event in kept(page)]
    site.refuse = lambda _posted: None
    until(lambda: ids(site.events) == before, what="the views of both")
    until(lambda: kept(page) == [], what="the store to be empty")


def test_a_browser_that_stores_nothing_still_reports(page: Page, site: Site, troubles: Troubles) -> None:
    troubles.tolerate("503")
    page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('refused') }})")
    site.refuse = refuse_first(("503 Service Unavailable", {}))
    watch(page)
    play(page, 0.3)
    until_equal(site.kinds, ["started"], what="the view, from memory")


def test_damaged_entries_hold_up_nothing_and_are_told(page: Page, site: Site) -> None:
    page.goto(BARE)
    keep(page, good := a_view())
    page.evaluate("localStorage.setItem('flixtrail.view.0', '{half'); localStorage.setItem('flixtrail.view.1', 'null')")
    page.goto("/history")
    until(lambda: ids(site.events) == [good["event_id"]], what="the good one")
    expect(page.get_by_role("alert")).to_contain_text("2 views of yours. The reason: What was kept of it is damaged.")
    assert kept(page) == []
