"""Nothing that a stranger sends may hold the event loop: whatever is answered on it takes less than 5 ms."""

from __future__ import annotations

import json
from collections.abc import Callable
from time import thread_time
from typing import Any, cast

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from streaming_app import create_app, wsgi
from streaming_app.access.auth import Tokens
from streaming_app.recording.request import MAX_ERRORS, MAX_EVENTS
from streaming_app.rsgi import ON_LOOP_BODY_BYTES, ON_LOOP_HEAD_BYTES
from streaming_app.settings import StreamingSettings
from tests.clips import sparse
from tests.rsgi_client import Scope
from view_events.event import new_event_id

SECRET = "a-secret-of-enough-length"
AUTHORIZATION = ("authorization", f"Bearer {Tokens(SECRET).viewer('mallory')}")
#: Seconds of CPU. Measured: 1.5 ms at most.
LONGEST_S = 0.005
#: A busy machine slows a try down now and then; the fastest of several is what the work takes.
TRIES = 5

LIKE_A_VIEW = {"kind": "progress", "video_id": "clip-1", "position_s": 1}
ALL_WRONG = dict.fromkeys(("kind", "video_id", "event_id", "playback_id", "at", "sent_at", "viewer_id"), 1)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    folder = tmp_path_factory.mktemp("loop")
    sparse(folder / "clip-1.mp4", 0)
    return create_app(
        StreamingSettings(
            videos=folder, cache=folder / "cache", outbox=folder / "outbox", secret_key=SECRET, behind_proxy=False
        )
    )


class Answer:
    """What the app says to a body when it runs on the event loop, and how long that takes."""

    def __init__(self, app: Flask, body: bytes, *, lines: bool = False, headers: list[tuple[str, str]] = []) -> None:  # noqa: B006
        content_type = "application/x-ndjson" if lines else "application/json"
        head = Headers([("host", "localhost"), ("content-type", content_type), AUTHORIZATION, *headers])
        scope = cast(Any, Scope(method="POST", path="/api/views", headers=head))
        self.seconds = LONGEST_S
        for _ in range(TRIES):
            began = thread_time()
            self.deferral = wsgi.Deferral(may_block=False)
            self.status, _, self.content = wsgi.run(app, scope, body, self.deferral)
            self.seconds = min(self.seconds, thread_time() - began)


def filled(unit: bytes, *, lines: bool = False) -> bytes:
    """As many of these as one body on the loop may have."""
    separator = b"\n" if lines else b","
    inner = separator.join([unit] * ((ON_LOOP_BODY_BYTES - 2) // (len(unit) + 1)))
    return inner if lines else b"[" + inner + b"]"


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


WORST: dict[str, bytes] = {
    "nesting": b"[" * ON_LOOP_BODY_BYTES,
    "nested objects": b'{"a":' * (ON_LOOP_BODY_BYTES // 5),
    "deep events": filled(b"[" * 100 + b"]" * 100),
    "a huge number": b'{"position_s":' + b"9" * (ON_LOOP_BODY_BYTES - 20) + b"}",
    "a huge exponent": b'{"position_s":1e' + b"9" * (ON_LOOP_BODY_BYTES - 20) + b"}",
    "a long fraction": b'{"position_s":0.' + b"9" * (ON_LOOP_BODY_BYTES - 20) + b"}",
    "a long text": b'{"kind":"' + b"x" * (ON_LOOP_BODY_BYTES - 20) + b'"}',
    "escapes": b'{"kind":"' + b"\\u0041" * (ON_LOOP_BODY_BYTES // 6 - 3) + b'"}',
    "invalid UTF-8": b'{"kind":"' + b"\xff" * (ON_LOOP_BODY_BYTES - 20) + b'"}',
    "many keys": b"{" + b",".join(b'"k%d":1' % number for number in range(1_400)) + b"}",
    "one key many times": b"{" + b",".join([b'"kind":"started"'] * 900) + b"}",
    "as many empty events as may be": b"[" + b",".join([b"{}"] * MAX_EVENTS) + b"]",
    "as many numbers as may be": b"[" + b",".join([b"1"] * MAX_EVENTS) + b"]",
    "one id many times": filled(compact({**LIKE_A_VIEW, "event_id": str(new_event_id())})),
    "unknown videos": b"[" + b",".join(compact({**LIKE_A_VIEW, "video_id": str(n)}) for n in range(280)) + b"]",
    "played from after": filled(compact({**LIKE_A_VIEW, "played_from_s": 2})),
    "all fields wrong": filled(compact(ALL_WRONG)),
    "empty lines": b"\n" * ON_LOOP_BODY_BYTES,
    **{unit.decode(): filled(unit) for unit in (b"{}", b"1", b"[]", b'""', b"null", b'{"at":1}')},
}


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("name", WORST)
def test_the_worst_bodies_are_refused_in_time_once_and_in_few_words(app: Flask, name: str, *, lines: bool) -> None:
    body = WORST[name].replace(b",", b"\n") if lines else WORST[name]
    answer = Answer(app, body, lines=lines)
    assert answer.seconds < LONGEST_S
    if not answer.deferral.needs_thread:  # only for a video that is new, perhaps
        assert answer.status in {400, 422}
        assert len(answer.content) < 8_000
        assert len(json.loads(answer.content).get("errors", [])) <= MAX_ERRORS
    assert not answer.deferral.needs_thread or name == "unknown videos"


numbers = st.integers(min_value=-(10**400), max_value=10**400) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=40)
anything = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner))
fields = st.dictionaries(st.sampled_from([*ALL_WRONG, "position_s", "played_from_s", "other"]), anything)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(unit=(fields | anything).map(compact) | st.binary(max_size=30), lines=st.booleans())
def test_no_body_takes_long(app: Flask, unit: bytes, *, lines: bool) -> None:
    assert Answer(app, filled(unit, lines=lines)[:ON_LOOP_BODY_BYTES], lines=lines).seconds < LONGEST_S


COOKIES: dict[str, Callable[[int], str]] = {
    "many": lambda size: "; ".join(f"a{number}=b" for number in range(size // 9)),
    "long": lambda size: "flixtrail_viewer=" + "a" * (size - 17),
    "quoted": lambda size: 'flixtrail_viewer="' + "\\1" * (size // 2 - 10) + '"',
}


@pytest.mark.parametrize("cookie", COOKIES)
def test_no_head_takes_long(app: Flask, cookie: str) -> None:
    assert Answer(app, b"{}", headers=[("cookie", COOKIES[cookie](ON_LOOP_HEAD_BYTES - 500))]).seconds < LONGEST_S


def test_the_first_errors_are_told_and_how_many_more_there_are(app: Flask) -> None:
    wrong, right = {"kind": "progress", "video_id": "clip-1"}, LIKE_A_VIEW
    answer = json.loads(Answer(app, compact([wrong, right] * 50)).content)
    assert [error["index"] for error in answer["errors"]] == list(range(0, 40, 2))
    assert answer["more_events"] == 30
    assert "30 more events" in answer["detail"]
