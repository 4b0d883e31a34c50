"""What can be watched: Prometheus has the figures and fires, Flower shows the work, the logs tell a view's story."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.client import a_view
from tests.compose.asking import BROKER_S, finished_tasks
from tests.compose.dashboard import expressions
from tests.compose.stack import Stack
from tests.waiting import until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

#: Prometheus asks every 5 s, looks who is there every 5 s, and judges every 5 s.
PROMETHEUS_S = 60
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def watched(stack: Stack) -> Iterator[Stack]:
    stack.compose("--profile", "observability", "up", "--detach", "prometheus")
    yield stack
    stack.compose("rm", "--stop", "--force", "prometheus")


def value(stack: Stack, query: str) -> float | None:
    """Of the first series; None where there is none."""
    found = (stack.prometheus(f"query?query={quote(query)}") or {}).get("result")
    return float(found[0]["value"][1]) if found else None


def test_every_replica_of_every_service_is_asked(watched: Stack) -> None:
    watched.scale(history_worker=2, streaming_app=2)
    expected = {"streaming-app": 2, "history-worker": 2, "history-api": 1, "rabbitmq": 1, "rabbitmq-queues": 1}

    def up() -> dict[str, int]:
        result = (watched.prometheus("query?query=sum%20by%20(job)%20(up)") or {"result": []})["result"]
        return {row["metric"]["job"]: int(row["value"][1]) for row in result if row["metric"]["job"] in expected}

    try:
        until(lambda: up() == expected, PROMETHEUS_S, what=f"{expected}", every_s=0.5)
    finally:
        watched.scale(history_worker=1, streaming_app=1)


def test_what_was_sent_is_what_prometheus_counts(watched: Stack) -> None:
    frank = watched.viewer("frank")
    clip = frank.get("/api/videos").json()["videos"][0]

    def counted() -> list[float]:
        names = (
            "flixtrail_views_accepted_total",
            "flixtrail_views_stored_total",
            'flixtrail_video_bytes_total{sent_by="proxy"}',
        )
        return [value(watched, f"sum({name})") or 0.0 for name in names]

    # From a moment at which nothing moves: replicas of an earlier test are forgotten.
    seen: list[list[float]] = []

    def nothing_moves() -> bool:
        seen.append(counted())
        return value(watched, 'count(up{job="streaming-app"})') == 1 and seen[-2:] == [seen[-1]] * 2

    until(nothing_moves, PROMETHEUS_S, what="the figures to stand still", every_s=6)
    before = seen[-1]
    for _ in range(5):
        frank.record([a_view() for _ in range(100)])
    frank.get(f"{clip['stream_url']}?playback=1", headers={"Range": "bytes=0-999"})
    wanted = [before[0] + 500, before[1] + 500, before[2] + 1000]
    until(lambda: counted() == wanted, PROMETHEUS_S, what=f"{wanted}", every_s=0.5)


def test_every_panel_of_the_dashboard_has_something_to_show(watched: Stack) -> None:
    empty: dict[str, Any] = {}
    for expression in expressions():
        answer = watched.ask("prometheus", f"/api/v1/query?query={quote(expression)}")
        assert answer.status == 200, (expression, answer.out)
        if not json.loads(answer.out)["data"]["result"]:
            empty[expression] = "nothing"
    assert not empty


def test_prometheus_own_page_has_the_same_in_figures(watched: Stack) -> None:
    page = watched.ask("prometheus", "/consoles/flixtrail.html")
    assert page.status == 200, page.out
    for word in ("views/s accepted", "views/s stored", "Alerts", "history-worker", "rabbitmq-queues"):
        assert word in page.out
    assert "<b>?</b>" not in page.out, "a figure that Prometheus does not have"


def test_an_alert_that_is_provoked_fires_and_ends(watched: Stack) -> None:
    def firing() -> set[str]:
        alerts = (watched.prometheus("alerts") or {"alerts": []})["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    until(lambda: "NoWorkerConsumes" not in firing(), PROMETHEUS_S, what="no alert", every_s=0.5)
    watched.compose("stop", "history-worker")
    try:
        # RabbitMQ counts every 5 s, and the alert waits for 30 s.
        until(lambda: "NoWorkerConsumes" in firing(), 2 * PROMETHEUS_S, what="NoWorkerConsumes to fire", every_s=0.5)
    finally:
        watched.compose("start", "history-worker")
    until(lambda: "NoWorkerConsumes" not in firing(), PROMETHEUS_S, what="the alert to end", every_s=0.5)


def test_promtool_takes_the_configuration(watched: Stack) -> None:
    done = watched.run("exec", "-T", "prometheus", "promtool", "check", "config", "/etc/prometheus/prometheus.yml")
    assert done.status == 0, done.out + done.err
    assert "SUCCESS" in done.out + done.err


def test_flower_lists_the_workers_the_tasks_and_the_queue(stack: Stack) -> None:
    shown(stack)


def shown(stack: Stack) -> None:
    """Workers, tasks with their runtime, the queue: as Flower's API tells."""
    until(lambda: stack.workers() <= (stack.flower("workers?refresh=1") or {}).keys(), BROKER_S, what="workers")
    bob = stack.viewer("bob")

    def finished() -> list[dict[str, Any]]:
        # Of tasks from before it switched events on, a few seconds after its start, Flower hears nothing.
        bob.record([a_view()])
        return finished_tasks(stack)

    task = until(finished, BROKER_S, what="a finished task", every_s=0.5)[0]
    assert task["name"] == "history.record_views"
    assert task["runtime"] > 0
    assert task["worker"] in stack.workers()
    # What a person reads there of a batch: how many of what, and nobody's name.
    assert re.fullmatch(r"<\d+ events: progress \d+>", task["args"])
    queues = {queue["name"]: queue["messages"] for queue in stack.flower("queues/length")["active_queues"]}
    assert queues.keys() == {"history"}


def test_one_grep_tells_the_story_of_a_view(stack: Stack) -> None:
    grace = stack.viewer("grace")
    answer = grace.post("/api/views", json=[a_view()], headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    assert answer.status == 202
    assert answer.headers["Trace-Id"] == TRACE
    (event_id,) = answer.json()["event_ids"]

    def told_by() -> set[str]:
        lines = stack.compose("logs", "--no-color").splitlines()
        # `streaming-app-1  | ...`; before it, docker compose may erase the line.
        named = [re.match(r"(?:\x1b\[2K)?([a-z-]+)-\d+ +\|", line) for line in lines if TRACE in line]
        return {name[1] for name in named if name}

    wanted = {"proxy", "streaming-app", "history-worker"}
    until(lambda: wanted <= told_by(), BROKER_S, what="all three to tell of it", every_s=0.5)

    logs = stack.compose("logs", "--no-color")
    told = stack.flixtrail("trace", event_id, "--logs", "-", data=logs)
    assert told.status == 0, told.out + told.err
    for word in ("published", "committed", "streaming-app", "history-worker", TRACE):
        assert word in told.out, told.out


def test_a_request_without_a_trace_gets_one_from_the_proxy(stack: Stack) -> None:
    answer = stack.viewer("grace").post("/api/views", json=[a_view()])
    trace_id = answer.headers["Trace-Id"]
    until(
        lambda: [line for line in stack.logs("proxy") if line.get("trace_id") == trace_id],
        BROKER_S,
        what="the proxy's line",
    )
