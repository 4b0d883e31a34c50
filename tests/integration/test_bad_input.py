"""Bad input over real HTTP: a clear 4xx problem, never a 500, never half a write."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from tests.client import Client, a_view
from tests.conftest import Demo

pytestmark = pytest.mark.rabbitmq

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client(rabbitmq_demo: Demo) -> Client:
    return Client(rabbitmq_demo.url, rabbitmq_demo.token("mallory"))


def test_what_is_no_view_is_a_problem(client: Client) -> None:
    good = json.dumps(a_view())
    for body, headers, status in [
        (b"", JSON, 400),
        (b"{", JSON, 400),
        (b"\xff\xfe\x00", JSON, 400),
        (b"[" * 200_000, JSON, 400),
        (b'{"a":' * 100_000, JSON, 400),
        (b'{"position_s": NaN}', JSON, 400),
        (f"{good}\n{{".encode(), {"Content-Type": "application/x-ndjson"}, 400),
        (b"null", JSON, 422),
        (b"[]", JSON, 422),
        (b"[[]]", JSON, 422),
        (b'"x"', JSON, 422),
        (json.dumps([a_view()] * 1001).encode(), JSON, 422),
        (b" " * (2 * 1024 * 1024), JSON, 413),
        (json.dumps([a_view(viewer_id="x" * 3000)] * 900).encode(), JSON, 413),
        (good.encode(), {"Content-Type": "text/plain"}, 415),
        (good.encode(), {**JSON, "Content-Encoding": "gzip"}, 415),
        (good.encode(), {}, 415),
    ]:
        answer = client.post("/api/views", body, headers=headers)
        assert answer.status == status, (body[:40], answer.status, answer.data[:300])
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == status
        assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"video_id": "no-such-video"}, "video_id"),
        ({"video_id": "../../etc/passwd"}, "video_id"),
        ({"video_id": "clip-1\u0000"}, "video_id"),
        ({"kind": "\ud800"}, "kind"),
        ({"position_s": 10**400}, "position_s"),
        ({"position_s": -1}, "position_s"),
        ({"position_s": []}, "position_s"),
        ({"event_id": str(uuid4())}, "event_id"),
        ({"event_id": "ffffffff-ffff-7fff-bfff-ffffffffffff"}, "event_id"),
        ({"at": "tomorrow"}, "at"),
    ],
)
def test_one_bad_field_refuses_the_whole_request(client: Client, fields: dict[str, Any], field: str) -> None:
    bad = a_view(**fields)
    answer = client.post("/api/views", json=[a_view(), bad])
    if answer.status == 400:  # a lone surrogate is no JSON text at all
        assert fields["kind"] == "\ud800"
    else:
        assert answer.status == 422, answer.data
        assert [(error["index"], error["field"]) for error in answer.json()["errors"]] == [(1, field)]
    assert client.history() == [], "half of a refused request was recorded"


def test_who_may_record(client: Client) -> None:
    assert Client(client.url).post("/api/views", json=a_view()).status == 401
    assert Client(client.url, "forged").post("/api/views", json=a_view()).status == 401
    assert client.post("/api/views", json=a_view(viewer_id="alice")).status == 403
    assert Client(client.url).get("/api/history").status == 401


@pytest.mark.parametrize(
    "path",
    ["/videos/../etc/passwd/stream", "/videos/%2e%2e%2fetc/stream", "/videos/clip-1%00/stream", "/videos/nope/stream"],
)
def test_path_tricks_find_nothing(client: Client, path: str) -> None:
    assert client.get(path).status == 404


@pytest.mark.parametrize(
    "fields", [{"cursor": "nonsense"}, {"limit": "0"}, {"limit": "x"}, {"limit": "101"}, {"cursor": "é"}]
)
def test_bad_pages_are_refused(client: Client, fields: dict[str, str]) -> None:
    answer = client.get("/api/history", None, **fields)
    assert answer.status == 422, answer.data
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_unknown_paths_and_methods_are_problems(client: Client) -> None:
    assert client.get("/api/nothing").status == 404
    answer = client.get("/api/views")
    assert answer.status == 405
    assert "POST" in answer.headers["Allow"]
    assert answer.headers["Content-Type"] == "application/problem+json"
