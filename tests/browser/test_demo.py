"""The whole of it: a browser, the demo's web server, RabbitMQ, a worker, PostgreSQL, the history API, and back."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import STEP_TIMEOUT_MS, Troubles
from tests.browser.playing import VIDEO, pause, play, seek, watch
from tests.conftest import Demo
from tests.waiting import until

pytestmark = [pytest.mark.browser, pytest.mark.rabbitmq]


def test_a_clip_is_played_and_left_and_the_history_shows_it_with_its_position(
    chromium: Browser, rabbitmq_demo: Demo, troubles: Troubles
) -> None:
    # On a busy machine a confirm may take longer than a request waits. The page then sends again, which is its job and
    # what this test is about; a browser complains all the same. Nothing else may go wrong.
    troubles.tolerate(f"503 (Service Unavailable) at {{'url': '{rabbitmq_demo.url}/api/views'")
    with chromium.new_context(base_url=rabbitmq_demo.url, locale="en-GB") as context:
        context.set_default_timeout(STEP_TIMEOUT_MS)
        troubles.watch(context)
        page = context.new_page()
        watch(page, "clip-3")
        play(page, 1)
        seek(page, 12)
        play(page, 13.2)
        # What was not confirmed in time is sent again by a page with a player: one stays open until all is there.
        sender = context.new_page()
        sender.goto("/watch/clip-1")
        entry = page.locator(".entry")

        def all_of_it_is_stored() -> bool:
            page.goto("/history")
            entry.first.wait_for()
            return bool(re.search(r"0:0[2-7] watched", entry.first.inner_text()))

        until(all_of_it_is_stored, 20, what="both intervals in the history", every_s=0.5)
        expect(entry).to_have_count(1)
        expect(entry).to_contain_text("Ember")
        # A busy machine may play a little further than it was asked to before it is stopped.
        expect(entry).to_contain_text(re.compile(r"0:1[3-6] of 0:30"))
        # What was played before the seek and after it, not the eleven seconds between.
        expect(entry).to_contain_text(re.compile(r"0:0[2-7] watched"))

        page.get_by_role("link", name="Continue Ember").click()
        page.wait_for_url(re.compile(r"/watch/clip-3\?t=1[3-6]$"))
        page.goto("/watch/clip-3")
        expect(page.get_by_text(re.compile(r"Continues at 0:1[3-6]\."))).to_be_visible()
        play(page, 17)
        pause(page)
        assert page.evaluate(f"{VIDEO}.error") is None
