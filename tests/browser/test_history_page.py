"""The history page, and the continue-watching row."""

from __future__ import annotations

from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Troubles
from tests.browser.playing import watched
from tests.browser.site import Site

pytestmark = pytest.mark.browser

AWAY = "History is away just now; views are still being recorded."


def test_it_tells_what_when_how_far_and_whether_it_was_finished(page: Page) -> None:
    page.goto("/")
    watched(page, "clip-2", 20, finished=True, ago=timedelta(days=1))
    watched(page, "clip-3", 21.5, ago=timedelta(minutes=1))
    page.goto("/history")
    entries = page.locator(".entry")
    expect(entries).to_have_count(2)
    ember, tide = entries.all()
    expect(ember).to_contain_text("Ember")
    expect(ember).to_contain_text("0:21 of 0:30")
    expect(ember).to_contain_text("0:21 watched")
    expect(ember.get_by_role("link", name="Continue Ember at 0:21")).to_have_attribute("href", "/watch/clip-3?t=21")
    expect(tide).to_contain_text("Tide")
    expect(tide).to_contain_text("Finished")
    expect(page.get_by_role("heading", level=2)).to_have_text(["Today", "Yesterday"])


def test_a_history_that_is_away_is_said_plainly_and_asked_again(page: Page, site: Site, troubles: Troubles) -> None:
    troubles.tolerate("503")
    page.goto("/")
    watched(page, "clip-3", 21.5, ago=timedelta(minutes=1))
    site.history_away = True
    page.goto("/history")
    expect(page.get_by_role("status")).to_have_text(AWAY)
    site.history_away = False
    expect(page.locator(".entry")).to_have_count(1)
    expect(page.get_by_role("status")).to_be_empty()


def test_the_library_stands_without_the_history(page: Page, site: Site, troubles: Troubles) -> None:
    troubles.tolerate("503")
    site.history_away = True
    page.goto("/")
    expect(page.get_by_role("link", name="Ember")).to_be_visible()
    expect(page.get_by_role("heading", name="Continue watching")).to_be_hidden()


def test_older_entries_are_loaded_on_demand(page: Page, site: Site, troubles: Troubles) -> None:
    troubles.tolerate("503")
    page.goto("/")
    for hours in range(30):
        watched(page, "clip-3", 10 + hours / 2, ago=timedelta(hours=hours, minutes=5))
    page.goto("/history")
    expect(page.locator(".entry")).to_have_count(25)
    site.history_away = True
    page.get_by_role("button", name="Load more").click()
    expect(page.get_by_role("status")).to_have_text(AWAY)
    site.history_away = False
    expect(page.locator(".entry")).to_have_count(30)
    expect(page.get_by_role("button", name="Load more")).to_be_hidden()
    headings = page.get_by_role("heading", level=2).all_inner_texts()
    assert len(headings) == len(set(headings)), "a day has one heading, also across pages"


def test_only_the_last_playback_of_a_video_decides_whether_it_goes_on(page: Page) -> None:
    page.goto("/")
    watched(page, "clip-3", 12, ago=timedelta(hours=2))
    watched(page, "clip-3", 30, finished=True, ago=timedelta(hours=1))
    watched(page, "clip-2", 8, ago=timedelta(hours=3))
    watched(page, "clip-1", 3, ago=timedelta(hours=4))
    page.reload()
    row = page.locator("#continue")
    expect(row.get_by_role("listitem")).to_have_count(1)
    expect(row.get_by_role("link")).to_have_attribute("href", "/watch/clip-2?t=8")
    expect(row).to_contain_text("0:12 left")
