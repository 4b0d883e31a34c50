"""Every page on a phone and a desktop, light and dark; the pictures stay in pytest's folder."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Troubles
from tests.browser.playing import watched
from tests.browser.site import Site

pytestmark = pytest.mark.browser

PHONE = {"width": 375, "height": 760}
DESKTOP = {"width": 1280, "height": 800}
PAGES = {"library": "/", "watch": "/watch/clip-3", "history": "/history"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_pages_fit_the_screen(
    chromium: Browser, site: Site, troubles: Troubles, tmp_path: Path, *, size: dict[str, int], scheme: str
) -> None:
    with chromium.new_context(viewport=size, color_scheme=scheme, base_url=site.url) as context:  # type: ignore[arg-type]
        troubles.watch(context)
        page = context.new_page()
        page.goto("/")
        watched(page, "clip-3", 21, ago=timedelta(minutes=3))
        watched(page, "clip-2", 20, finished=True, ago=timedelta(days=1))
        for name, path in PAGES.items():
            page.goto(path)
            page.wait_for_load_state("networkidle")
            page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
                f"{name} is wider than the screen"
            )
            dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 18, 23)"
            assert dark == (scheme == "dark")
            small = page.locator("header a, button:visible, .button:visible")
            assert all(box and box["height"] >= 44 for box in (target.bounding_box() for target in small.all()))


def test_the_library_and_the_player_work_without_scripts(chromium: Browser, site: Site) -> None:
    with chromium.new_context(java_script_enabled=False, base_url=site.url) as context:
        page = context.new_page()
        page.goto("/")
        page.get_by_role("link", name="Ember").click()
        expect(page.get_by_role("heading", name="Ember")).to_be_visible()
        expect(page.locator("video[controls]")).to_have_attribute("src", "/videos/clip-3/stream")
        page.goto("/history")
        assert "The history needs JavaScript." in page.content()


def test_the_keyboard_reaches_the_content_first(chromium: Browser, site: Site) -> None:
    with chromium.new_context(base_url=site.url) as context:
        page = context.new_page()
        page.goto("/")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()


def test_a_broken_file_says_why_and_leads_nowhere(chromium: Browser, site: Site) -> None:
    with chromium.new_context(base_url=site.url) as context:
        page = context.new_page()
        page.goto("/")
        card = page.locator(".card.broken")
        expect(card).to_contain_text("Broken recording")
        expect(card).to_contain_text("Cannot be played:")
        expect(card.get_by_role("link")).to_have_count(0)
