"""Everything as `docker compose up` starts it: used, scaled under load, killed, restarted."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.client import Client, a_view
from tests.compose.asking import (
    BROKER_S,
    RECONNECT_S,
    consumers,
    finished_tasks,
    held_by_all,
    redelivered,
    stored,
    wait_until_all_is_stored,
    watched,
)
from tests.compose.load import Load
from tests.compose.stack import Stack
from tests.waiting import until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(420)]


@pytest.mark.timeout(900)  # the first test builds the image
def test_a_clip_is_read_and_a_view_becomes_a_row(stack: Stack) -> None:
    alice = stack.viewer("alice")
    clip = alice.get("/api/videos").json()["videos"][0]
    part = alice.get(clip["stream_url"], headers={"Range": "bytes=4-99"})
    assert part.status == 206
    assert part.headers["Content-Range"] == f"bytes 4-99/{clip['size_bytes']}"
    assert part.data.startswith(b"ftyp")  # MPEG-4, 4.3: the first box of a file says what it is

    alice.record([a_view(video_id=clip["id"], position_s=7.5)])

    # Two playbacks: reading with a token is one as well.
    until(lambda: len(watched(alice)) == 2, BROKER_S, what="both playbacks in the history")
    assert {(item["title"], item["position_s"]) for item in alice.history()} == {
        (clip["title"], 7.5),
        (clip["title"], 0),
    }


def test_the_proxy_sends_the_bytes_and_answers_as_the_streaming_app_would(stack: Stack) -> None:
    nobody = Client(stack.url)
    clip = nobody.get("/api/videos").json()["videos"][0]
    url, size = clip["stream_url"], clip["size_bytes"]
    whole = nobody.get(url)
    assert (whole.status, len(whole.data)) == (200, size)
    assert whole.headers["Content-Type"] == "video/mp4"
    # Its own tag, and none of what the streaming app said to it alone: Python had nothing to do with the bytes.
    assert "x-accel-redirect" not in whole.headers
    assert nobody.get("/api/videos").headers["Server"] == whole.headers["Server"] == "nginx"
    tag = whole.headers["ETag"]

    def asked(status: int, **headers: str) -> bytes:
        answer = nobody.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
        assert answer.status == status, (headers, answer.status)
        return answer.data

    assert asked(206, Range="bytes=-10") == whole.data[-10:]
    assert asked(206, Range="bytes=100-", If_Range=tag) == whole.data[100:]
    assert len(asked(200, Range="bytes=100-", If_Range='"another"')) == size
    assert asked(304, If_None_Match=tag) == b""
    # nginx closes the connection after this one, and says that it will not.
    asked(412, If_Match='"another"', Connection="close")
    asked(416, Range=f"bytes={size}-")
    assert len(asked(200, Range="bytes=0-1,4-5")) == size
    # Where the files lie is no way in.
    assert nobody.get("/accel/var/cache/flixtrail/samples/clip-1.mp4").status == 404
    assert nobody.get("/videos/no-such-clip/stream").json()["status"] == 404


def test_a_browser_that_reports_far_too_often_is_told_to_wait_and_others_are_not(stack: Stack) -> None:
    page = Client(stack.url).get("/")
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    browser = Client(stack.url)

    def too_many() -> Any:
        answer = browser.post("/api/views", json=[a_view(kind="nonsense")], headers={"Cookie": cookie})
        return answer.status == 429 and answer

    refused = until(too_many, what="429", every_s=0)
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["status"] == 429
    another = Client(stack.url).get("/").headers["Set-Cookie"].partition(";")[0]
    assert browser.post("/api/views", json=[a_view()], headers={"Cookie": another}).status == 202
    stack.viewer("dora").record([a_view()])


def test_metrics_are_for_this_host_and_for_nobody_who_came_by_way_of_another_proxy(stack: Stack) -> None:
    nobody = Client(stack.url)
    assert nobody.get("/metrics").status == 200
    assert nobody.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1"}).status == 403


def test_everything_is_scaled_and_killed_under_load_and_each_accepted_view_is_stored_once(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(stored(stack))
    with Load(stack.ingest) as load:
        stack.scale(history_worker=4, streaming_app=3)
        until(lambda: consumers(stack) == 4, BROKER_S, what="four consumers")
        kill_a_worker_that_holds_deliveries(stack)
        again = until(lambda: redelivered(stack), BROKER_S, what="a redelivery")
        stack.scale(history_worker=2, streaming_app=2)
        until(lambda: len(stack.workers()) == 2 and consumers(stack) == 2, BROKER_S, what="two consumers")
        for service in ("streaming-app", "history-worker", "history-api", "flower", "proxy", "postgres", "rabbitmq"):
            kill_one(stack, service)
            goes_on(load)
        for service in ("rabbitmq", "postgres"):
            stack.compose("restart", service)
            goes_on(load)
        until(lambda: len(load.accepted) >= 20_000, 120, what="20,000 accepted views")

    wait_until_all_is_stored(stack, load.accepted)
    assert set(stored(stack)) - before == set(load.accepted)
    with capsys.disabled():
        told = f"{len(load.accepted):,} accepted = stored; {load.retries} retries; {len(again)} redelivered"
        print(told)  # noqa: T201


def test_worker_streaming_app_and_flower_come_back_after_a_restart_of_the_broker(stack: Stack) -> None:
    stack.compose("restart", "rabbitmq")
    back = datetime.now(UTC)
    until(lambda: consumers(stack) == len(stack.workers()), RECONNECT_S, what="every worker consuming again")
    carol = stack.viewer("carol")

    def seen_by_flower() -> list[dict[str, Any]]:
        carol.record([a_view()])
        return finished_tasks(stack, after=back)

    until(seen_by_flower, RECONNECT_S, what="Flower seeing tasks again", every_s=1)


def test_what_lies_in_the_outboxes_of_replicas_that_went_away_is_sent_by_those_that_stay(stack: Stack) -> None:
    stack.scale(streaming_app=3)
    stack.compose("stop", "rabbitmq")
    try:
        with Load(stack.ingest) as load:
            until(lambda: len(load.accepted) >= 1_000, 60, what="1,000 views accepted without a broker")
            # With connections of its own each: every replica has some of them.
            adopters = stack.containers("streaming-app")
            stack.compose("up", "--detach", "--no-recreate", "--no-deps", "--scale=streaming-app=1", "streaming-app")
            (left,) = stack.containers("streaming-app")
            assert left in adopters
    finally:
        stack.compose("start", "rabbitmq")
    wait_until_all_is_stored(stack, load.accepted)
    adopted = [line for line in stack.logs("streaming-app") if "adopted the outbox" in str(line.get("event"))]
    assert sum(line["events"] for line in adopted) > 0


def test_while_there_is_no_streaming_app_the_proxy_says_so(stack: Stack) -> None:
    stack.compose("stop", "streaming-app")
    try:
        answer = stack.viewer("alice").post("/api/views", json=[a_view()])
        assert answer.status == 503
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["Retry-After"] == "1"
    finally:
        stack.compose("start", "streaming-app")
    stack.viewer("alice").record([a_view()])


def goes_on(load: Load) -> None:
    known = len(load.accepted)
    until(lambda: len(load.accepted) > known + 100, RECONNECT_S, what="views accepted again")


def kill_one(stack: Stack, service: str) -> None:
    """kill -9 of one of its containers; Docker starts it again as after a crash."""
    container = stack.containers(service)[0]
    stack.kill(container)
    # Docker takes `docker kill` for the wish of a person, and leaves the container to them.
    subprocess.run(["docker", "start", container], check=True, capture_output=True, timeout=60)
    until(healthy(stack, container), RECONNECT_S, what=f"{service} to be healthy again", every_s=0.2)


def healthy(stack: Stack, container: str) -> Callable[[], bool]:
    return lambda: stack.inspect(container)["State"]["Health"]["Status"] == "healthy"


def kill_a_worker_that_holds_deliveries(stack: Stack) -> None:
    """The others hold on to theirs until the table is free again."""
    with stack.locked("view_events"):
        # RabbitMQ counted while the table was locked, not before.
        holding = until(lambda: held_by_all(stack, 4), BROKER_S, what="deliveries held by every worker")
        worker = max(holding, key=lambda name: holding[name])
        stack.kill(worker.partition("@")[2])
        assert worker not in stack.workers()
