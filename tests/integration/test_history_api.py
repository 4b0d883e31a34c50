"""The history API on a real PostgreSQL: whatever is asked, and however long a query takes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from history_worker.api import STATEMENT_TIMEOUT_MS, THREADS_A_VIEWER, connect_briefly, create_app
from history_worker.settings import ApiSettings
from history_worker.store import queries
from streaming_app.history_client import TIMEOUT_S
from tests.integration.database import an_empty
from tests.waiting import until

TOKEN = "a-token-of-enough-length"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def engine(url: str) -> Iterator[Engine]:
    an_empty(url).dispose()
    engine = connect_briefly(url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def app(engine: Engine) -> Flask:
    app = create_app(ApiSettings(database_url="postgresql://unused", history_api_token=TOKEN), engine)
    app.testing = False  # an error is to be answered, as in production
    return app


def get(app: Flask, path: str) -> Any:
    return app.test_client().get(path, headers=HEADERS)


def cursor(*key: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


UUID = "01a20e06-6f35-76ed-9999-883561ad754b"
BAD_CURSORS = [
    cursor("2026-11-24T14:47:12Z", UUID, "a\0b"),
    cursor("2026-11-24T14:47:12", UUID, "clip-1"),
    cursor("infinity", UUID, "clip-1"),
    cursor("2026-11-24T14:47:12Z", UUID, "x" * 129),
    cursor("2026-11-24T14:47:12Z", "no uuid", "clip-1"),
    cursor(*["[" * 3] * 3),
    base64.urlsafe_b64encode(b"[" * 20_000).decode(),
    base64.urlsafe_b64encode(b'["2026-11-24T14:47:12Z", "' + UUID.encode() + b'", "\\ud800"]').decode(),
    "ä",
    "%00",
]


@pytest.mark.parametrize("bad", BAD_CURSORS)
def test_a_cursor_that_nobody_gave_is_refused(app: Flask, bad: str) -> None:
    answer = get(app, f"/history?viewer_id=alice&cursor={quote(bad)}")
    assert answer.status_code == 422, answer.text
    assert answer.json["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"event_ids": ' + b"[" * 100_000,
        b'{"event_ids": ["\\ud800"]}',
        b'{"event_ids": ["' + b"\xff" + b'"]}',
        b'{"event_ids": [1e400]}',
        b'{"event_ids": {}}',
        b"null",
        b"",
        json.dumps({"event_ids": [UUID] * 10_001}).encode(),
    ],
)
def test_receipts_of_nonsense_are_refused(app: Flask, body: bytes) -> None:
    answer = app.test_client().post("/receipts", data=body, headers=HEADERS)
    assert answer.status_code == 422, answer.text


WORDS = st.text(max_size=200) | st.sampled_from(["1e3", "-1", "0", "9" * 30, "nan", *BAD_CURSORS])


@settings(max_examples=150)
@given(query=st.dictionaries(st.sampled_from(["viewer_id", "video_id", "cursor", "limit", "other"]), WORDS))
def test_no_query_is_an_error_of_the_server(app: Flask, query: dict[str, str]) -> None:
    path = "/history?" + "&".join(f"{name}={quote(value, errors='replace')}" for name, value in query.items())
    assert get(app, path).status_code in {200, 422}


@pytest.fixture
def slow(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every query for a page waits in the database, as one does whose viewer has made it expensive."""

    def history(_engine: Engine, viewer_id: str, **_: Any) -> dict[str, Any]:
        seconds = 60 if viewer_id == "greedy" else 0
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
        return {"items": [], "next_cursor": None}

    monkeypatch.setattr(queries, "history", history)


@pytest.mark.usefixtures("slow")
def test_a_viewer_whose_queries_are_slow_keeps_no_place_from_others(app: Flask) -> None:
    with ThreadPoolExecutor(16) as pool:
        greedy = [pool.submit(get, app, "/history?viewer_id=greedy") for _ in range(16)]
        until(lambda: sum(one.done() for one in greedy) >= 16 - THREADS_A_VIEWER, 5, what="the others to be refused")
        began = monotonic()
        assert get(app, "/history?viewer_id=alice").status_code == 200
        assert monotonic() - began < 1
        answers = [one.result(5) for one in greedy]
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(429) >= 16 - THREADS_A_VIEWER
    assert set(statuses) <= {429, 503}
    assert all(answer.headers["Retry-After"] for answer in answers if answer.status_code == 429)


@pytest.mark.usefixtures("slow")
def test_a_query_ends_before_its_caller_gives_up(app: Flask, engine: Engine) -> None:
    assert STATEMENT_TIMEOUT_MS / 1000 < TIMEOUT_S
    answer = get(app, "/history?viewer_id=greedy")
    assert (answer.status_code, answer.json) == (503, {"detail": "The database is too slow just now."})
    with engine.connect() as connection:
        running = (
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep%'"
            " AND pid <> pg_backend_pid()"
        )
        assert connection.execute(text(running)).scalar_one() == 0
