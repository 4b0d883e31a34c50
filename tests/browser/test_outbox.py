"""What was not accepted stays in the browser and is sent again, with the same ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import Troubles
from tests.browser.playing import keep, kept, pause, play, watch
from tests.browser.site import Answer, Posted, Site
from tests.client import a_view
from tests.fakes import ids
from tests.waiting import until

pytestmark = pytest.mark.browser

#: A page of this site without a script, to put things into the store before one runs.
BARE = "/healthz"
AWAY = "Recording is away just now."


def refuse_first(*answers: Answer) -> Any:
    """Give these answers to the first requests, and leave the others alone."""
    remaining = list(answers)
    return lambda _posted: remaining.pop(0) if remaining else None


def sent_ids(posted: Posted) -> list[str]:
    return [event["event_id"] for event in posted]


@pytest.mark.parametrize("status", ["503 Service Unavailable", "429 Too Many Requests", "500 Oops", "401 Unauthorized"])
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
    until(lambda: len(site.events) == 2, what="the views")
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
    until(lambda: site.kinds() == ["started"], timeout_s=5, what="the view")


def test_a_422_drops_what_it_names_and_sends_the_others_again(page: Page, site: Site, troubles: Troubles) -> None:
    troubles.tolerate("422")
    page.goto(BARE)
    good = [a_view(position_s=float(second)) for second in range(3)]
    bad = [a_view(video_id="left-the-library"), a_view(position_s=-1)]
    keep(page, good[0], bad[0], good[1], bad[1], good[2])
    page.goto("/history")
    until(lambda: len(site.events) == 3, what="the good ones")
    assert set(ids(site.events)) == {event["event_id"] for event in good}
    until(lambda: kept(page) == [], what="the bad ones to be dropped")


@pytest.mark.parametrize("status", ["413 Content Too Large", "400 Bad Request"])
def test_one_event_that_nobody_can_take_is_found_and_does_not_hold_up_the_others(
    page: Page, site: Site, troubles: Troubles, status: str
) -> None:
    troubles.tolerate("413", "400")
    page.goto(BARE)
    views = [a_view(position_s=float(second)) for second in range(600)]
    poison = views[6]["event_id"]
    site.refuse = lambda posted: (status, {}) if poison in sent_ids(posted) else None
    keep(page, *views)
    page.goto("/history")
    until(lambda: len(site.events) == 599, what="the good ones")
    until(lambda: kept(page) == [], what="the poisonous one to be dropped")
    assert len(site.posts) < 40, "requests grow again once they work"


def test_a_403_is_not_argued_with(page: Page, site: Site, troubles: Troubles) -> None:
    troubles.tolerate("403")
    page.clock.install()
    page.goto(BARE)
    keep(page, a_view())
    site.refuse = lambda _posted: ("403 Forbidden", {})
    watch(page)
    play(page, 0.5)
    pause(page)
    until(lambda: len(kept(page)) == 3, what="the views to be kept")
    page.clock.fast_forward(120_000)
    page.evaluate("fetch('/healthz')")  # whatever was sent before has arrived
    assert len(site.posts) == 1
    site.refuse = lambda _posted: None
    page.goto("/")
    until(lambda: len(site.events) == 3, what="the next page to send them")


def test_what_a_beacon_carried_stays_until_the_next_page_has_it_confirmed(page: Page, site: Site) -> None:
    watch(page)
    play(page, 0.5)
    until(lambda: kept(page) == [], what="`started` to be accepted")
    page.goto("about:blank")
    until(lambda: site.kinds() == ["started", "progress"], what="the beacon")
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


def test_thousands_are_sent_in_requests_of_a_thousand(page: Page, site: Site) -> None:
    page.goto(BARE)
    views = [a_view(position_s=float(second)) for second in range(2_100)]
    keep(page, *views)
    page.goto("/history")
    until(lambda: len(site.events) == 2_100, what="all of them")
    assert [len(posted) for _, posted in site.posts] == [1_000, 1_000, 100]
    until(lambda: kept(page) == [], what="the store to be empty")


def test_the_store_is_bounded_and_the_oldest_go_first(page: Page, site: Site, troubles: Troubles) -> None:
    troubles.tolerate("503")
    site.refuse = lambda _posted: ("503 Service Unavailable", {})
    page.goto(BARE)
    keep(page, *(a_view(playback_id=str(uuid4())) for _ in range(5_000)))
    oldest = kept(page)[0]["event_id"]
    watch(page)
    play(page, 0.3)
    until(lambda: any(event["kind"] == "started" for event in kept(page)), what="the new view")
    remaining = [event["event_id"] for event in kept(page)]
    assert len(remaining) == 5_000
    assert oldest not in remaining


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
    until(lambda: len(kept(page)) == 4, what="both tabs' views in one store")
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
    until(lambda: site.kinds() == ["started"], what="the view, from memory")


def test_rubbish_in_the_store_is_swept_out(page: Page, site: Site) -> None:
    page.goto(BARE)
    keep(page, good := a_view())
    page.evaluate("localStorage.setItem('flixtrail.view.0', '{half'); localStorage.setItem('flixtrail.view.1', 'null')")
    page.goto("/history")
    until(lambda: ids(site.events) == [good["event_id"]], what="the good one")
    until(lambda: page.evaluate("localStorage.length") == 0, what="the store to be empty")
