"""How much may be recorded: by one viewer, by one address, and by those who make new viewers of themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from service import metrics
from streaming_app import create_app
from streaming_app.access.auth import COOKIE, PLAIN_COOKIE, Tokens
from streaming_app.recording.outbox import Outbox
from streaming_app.recording.publisher import Publisher
from streaming_app.recording.rate_limits import network
from streaming_app.settings import StreamingSettings
from tests.clips import sparse
from tests.fakes import RecordingLink
from tests.rsgi_client import RsgiApp, RsgiClient
from tests.waiting import until

SECRET = "a-secret-of-enough-length"
VIEW = {"kind": "progress", "video_id": "clip-1", "position_s": 1}
#: A thousandth of an event a second: within a test, nothing comes back.
SLOW = {"viewer_events_per_s": 0.001, "address_events_per_s": 0.001, "new_viewers_per_minute": 0.001}


class Viewers:
    """Clients of one app, each with a cookie jar of its own, and what arrived at the broker."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        sparse(folder / "clip-1.mp4", 0)
        values = {"videos": folder, "cache": folder / "cache", "outbox": folder / "outbox", "secret_key": SECRET}
        flask = create_app(StreamingSettings.model_validate({**values, **settings}))
        self.link = RecordingLink()
        self.publisher = Publisher(self.link, Outbox(folder / "sent", max_bytes=1024 * 1024))
        flask.extensions["flixtrail"] = replace(flask.extensions["flixtrail"], publisher=self.publisher)
        self.app = RsgiApp(flask)
        self.publisher.start()
        until(lambda: self.publisher.ready, what="the publisher")

    def somebody(self, address: str = "192.0.2.1") -> RsgiClient:
        """A browser that has opened a page."""
        client = self.app.client(address)
        client.get("/history")
        return client


StartViewers = Callable[..., Viewers]


@pytest.fixture
def viewers(tmp_path: Path) -> Any:
    started: list[Viewers] = []

    def start(**settings: Any) -> Viewers:
        started.append(Viewers(tmp_path, **{**SLOW, **settings}))
        return started[-1]

    yield start
    for one in started:
        one.publisher.stop()


def post(client: RsgiClient, count: int = 1, /, **headers: str) -> TestResponse:
    return client.post("/api/views", json=[VIEW] * count, headers=headers)


def test_a_viewer_who_sends_too_much_is_told_when_to_send_the_same_again(viewers: StartViewers) -> None:
    site = viewers(viewer_burst=5, viewer_events_per_s=0.5)
    alice, bob = site.somebody(), site.somebody()
    before = metrics.streaming().limited.labels("events")._value.get()  # noqa: SLF001
    assert post(alice, 5).status_code == 202
    refused = post(alice, 3)
    assert refused.status_code == 429
    assert refused.mimetype == "application/problem+json"
    assert refused.headers["Retry-After"] == "6"
    assert len(refused.get_json()["event_ids"]) == 3
    assert refused.headers["Trace-Id"]
    assert post(bob, 5).status_code == 202
    assert len(site.link.events) == 10, "a part of a refused request was recorded"
    assert metrics.streaming().limited.labels("events")._value.get() - before == 3  # noqa: SLF001


@pytest.mark.parametrize(
    "evasion",
    [
        {"Cookie": "Flixtrail_Viewer={cookie}"},
        {"Cookie": f"{COOKIE}=; {COOKIE}={{cookie}}"},
        {"Cookie": f"a=b; {COOKIE}={{cookie}}"},
        {"Cookie": f'{COOKIE}="{{cookie}}"'},
        {"Cookie": f"{COOKIE}={{cookie}}="},
        {"Cookie": f"{COOKIE}={{cookie}}; {COOKIE}={{cookie}}"},
        {"Cookie": f"{PLAIN_COOKIE}={{cookie}}"},
        {"Cookie": f"{COOKIE}={{cookie}}", "Authorization": "\t"},
        {"Cookie": f"{COOKIE}={{cookie}}", "X-Real-IP": "198.51.100.7", "X-Forwarded-For": "198.51.100.8"},
    ],
)
def test_a_cookie_that_is_written_otherwise_is_the_same_viewer_or_nobody(
    viewers: StartViewers, evasion: dict[str, str]
) -> None:
    site = viewers(viewer_burst=5)
    alice = site.somebody()
    cookie = alice.get_cookie(COOKIE)
    assert cookie
    assert post(alice, 5).status_code == 202
    headers = {name: value.format(cookie=cookie.value) for name, value in evasion.items()}
    assert post(site.app.client(use_cookies=False), 1, **headers).status_code in {401, 429}


def test_one_address_may_not_have_many_viewers_who_each_send_much(viewers: StartViewers) -> None:
    site = viewers(viewer_burst=5, address_burst=12)
    for _ in range(2):
        assert post(site.somebody(), 5).status_code == 202
    assert post(site.somebody(), 5).status_code == 429
    assert post(site.somebody("192.0.2.2"), 5).status_code == 202


def test_behind_our_proxy_the_address_is_the_one_that_it_saw(viewers: StartViewers) -> None:
    site = viewers(viewer_burst=9, address_burst=5, behind_proxy=True)
    assert post(site.somebody(), 5, **{"X-Real-IP": "203.0.113.5"}).status_code == 202
    assert post(site.somebody(), 5, **{"X-Real-IP": "203.0.113.6"}).status_code == 202
    assert post(site.somebody(), 5, **{"X-Real-IP": "203.0.113.5"}).status_code == 429
    forged = {"X-Forwarded-For": "1.2.3.4, 203.0.113.6"}
    assert post(site.somebody(), 5, **forged).status_code == 429


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "nonsense", True),
    ],
)
def test_what_one_household_has_is_one(one: str, other: str, *, same: bool) -> None:
    assert (network(one) == network(other)) == same


def test_a_cookie_sends_a_hundred_events_at_once_and_a_token_a_thousand(viewers: StartViewers) -> None:
    site = viewers()
    alice, token = site.somebody(), {"Authorization": f"Bearer {Tokens(SECRET).viewer('alice')}"}
    assert post(alice, 100).status_code == 202
    refused = post(alice, 101)
    assert refused.status_code == 422
    assert refused.get_json()["errors"][0]["message"] == "101 events; expected 1 to 100"
    for _ in range(10):
        assert post(alice, 1_000, **token).status_code == 202
    assert post(alice, 1, **token).status_code == 429


def test_ingest_tokens_are_not_limited_unless_one_wants_it(viewers: StartViewers) -> None:
    ingest = {"Authorization": f"Bearer {Tokens(SECRET).ingest()}"}
    body = [{**VIEW, "viewer_id": "alice"}] * 1_000
    free = viewers().app.client()
    for _ in range(12):
        assert free.post("/api/views", json=body, headers=ingest).status_code == 202
    bound = viewers(ingest_events_per_s=0.001, ingest_burst=1_500).app.client()
    answers = [bound.post("/api/views", json=body, headers=ingest).status_code for _ in range(2)]
    assert answers == [202, 429]


def test_requests_that_are_refused_count_for_who_has_only_a_cookie(viewers: StartViewers) -> None:
    alice = viewers(viewer_burst=5).somebody()
    answers = [alice.post("/api/views", json={"kind": "nonsense"}).status_code for _ in range(7)]
    assert answers == [422] * 5 + [429] * 2


def test_no_limit_at_all(viewers: StartViewers) -> None:
    off = dict.fromkeys(
        ("viewer_events_per_s", "address_events_per_s", "new_viewers_per_minute", "cookie_request_events"), 0
    )
    site = viewers(**off)
    alice = site.somebody()
    assert [post(alice, 1_000).status_code for _ in range(6)] == [202] * 6


def test_an_address_that_makes_too_many_viewers_gets_pages_and_is_told_why_nothing_is_recorded(
    viewers: StartViewers,
) -> None:
    site = viewers(new_viewers_burst=2)
    for _ in range(2):
        assert site.somebody().get_cookie(COOKIE)
    newcomer = site.somebody()
    assert newcomer.get("/history").status_code == 200
    assert not newcomer.get_cookie(COOKIE)
    assert newcomer.post("/api/views/check").status_code == 401
    refused = newcomer.get("/api/page")
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert "Too many new viewers" in refused.get_json()["detail"]
    assert site.somebody("2001:db8::1").get_cookie(COOKIE)
