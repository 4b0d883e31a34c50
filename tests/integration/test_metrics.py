"""The figures of a running demo are what happened in it, also when a process that counted is gone."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import psycopg
import urllib3
from prometheus_client.parser import text_string_to_metric_families

from service import metrics_files
from tests.client import Client, a_view
from tests.conftest import Demo
from tests.faults.broker import frozen
from tests.faults.database import refusing
from tests.waiting import until

HTTP = urllib3.PoolManager(timeout=5, retries=False)


def figure(url: str, name: str, **labels: str) -> float:
    """The sum of all samples of that name that have these labels."""
    families = text_string_to_metric_families(HTTP.request("GET", url).data.decode())
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    assert samples, f"no {name} at {url}"
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def of_workers(demo: Demo, name: str, **labels: str) -> float:
    return sum(figure(worker["metrics_url"], name, **labels) for worker in demo.status()["workers"])


def of_web(demo: Demo, name: str, **labels: str) -> float:
    return figure(f"{demo.url}/metrics", name, **labels)


def health(worker: dict[str, Any]) -> urllib3.BaseHTTPResponse:
    return HTTP.request("GET", worker["metrics_url"].replace("/metrics", "/healthz"))


def record(demo: Demo, *views: dict[str, Any]) -> list[str]:
    return Client(demo.url, demo.token(f"counted-{uuid4()}")).record(views or [a_view() for _ in range(20)])


def test_what_was_sent_is_what_the_workers_counted(demo: Demo) -> None:
    before = {name: of_workers(demo, name) for name in ("flixtrail_views_stored_total", "flixtrail_views_known_total")}
    batches = of_workers(demo, "flixtrail_view_age_seconds_count")
    deliveries = of_workers(demo, "flixtrail_deliveries_total")
    doubted = of_web(demo, "flixtrail_outbox_stored_total")
    for _ in range(10):
        record(demo)
    again = [a_view() for _ in range(3)]
    for _ in range(2):
        record(demo, *again)
        until(demo.broker_is_empty, 20, what="the queue to be empty", every_s=0.1)

    def counted() -> tuple[float, float]:
        stored, known = (of_workers(demo, name) - value for name, value in before.items())
        return stored, known

    until(lambda: counted()[0] == 203 and counted()[1] >= 3, 20, what="203 new rows and 3 known ones")
    demo.settled()
    # On a busy machine a confirm may come too late. Then the views go to the outbox, too, and arrive a second time.
    again_at_most = of_web(demo, "flixtrail_outbox_stored_total") - doubted
    stored, known = counted()
    assert stored == 203
    assert 3 <= known <= 3 + again_at_most
    delivered = of_workers(demo, "flixtrail_deliveries_total") - deliveries
    assert 12 <= delivered <= 12 + again_at_most
    # Messages that wait together are written together.
    assert 1 <= of_workers(demo, "flixtrail_view_age_seconds_count") - batches <= delivered
    assert of_workers(demo, "flixtrail_consuming") == of_workers(demo, "flixtrail_database_up") == 2
    assert of_workers(demo, "flixtrail_views_refused_total") >= 0


def test_what_a_process_of_the_pool_counted_outlives_it(rabbitmq: Demo) -> None:
    before = of_workers(rabbitmq, "flixtrail_views_stored_total")
    record(rabbitmq)
    until(lambda: of_workers(rabbitmq, "flixtrail_views_stored_total") - before == 20, 20, what="20 to be counted")
    for worker in rabbitmq.status()["workers"]:
        for child in worker["children"]:
            os.kill(child, signal.SIGKILL)
    record(rabbitmq)
    until(lambda: of_workers(rabbitmq, "flixtrail_views_stored_total") - before == 40, 20, what="40 to be counted")
    until(lambda: of_workers(rabbitmq, "flixtrail_database_up") == 2, what="nobody to speak for the dead")


def test_a_worker_that_is_started_again_begins_at_0_and_leaves_no_files(demo: Demo) -> None:
    record(demo)
    killed = demo.status()["workers"][0]
    folders = metrics_folders([killed["pid"], *killed["children"]])
    assert folders
    demo.cli("workers", "kill", killed["name"])
    demo.settled()
    first = demo.status()["workers"][0]
    until(lambda: health(first).status == 200, 20, what="the worker to be healthy")
    assert figure(first["metrics_url"], "flixtrail_deliveries_total") < 10
    assert not any(folder.exists() for folder in folders)


def metrics_folders(pids: list[int]) -> set[Path]:
    """The folders with the counters that these processes have mapped."""
    mapped = [Path(mapping.path) for pid in pids for mapping in psutil.Process(pid).memory_maps()]
    return {path.parent for path in mapped if path.parent.name.startswith(metrics_files.PREFIX)}


def test_a_redelivery_is_counted(rabbitmq: Demo) -> None:
    """The test holds a row, so that the workers wait with their messages; then it kills them."""
    view = a_view()
    with psycopg.connect(rabbitmq.status()["database"]["url"]) as connection:
        connection.execute(
            "INSERT INTO view_events SELECT %s, 'x', 'x', gen_random_uuid(), 'started', 0, NULL, now(), now()",
            [view["event_id"]],
        )
        before = of_workers(rabbitmq, "flixtrail_deliveries_total")
        record(rabbitmq, view)
        until(lambda: of_workers(rabbitmq, "flixtrail_deliveries_total") > before, what="a worker to hold it")
        for worker in rabbitmq.status()["workers"]:
            for pid in (worker["pid"], *worker["children"]):
                os.kill(pid, signal.SIGKILL)
        connection.rollback()
    rabbitmq.settled()
    # The broker's own figures, which tell whether all has settled, lag by seconds.
    until(lambda: of_workers(rabbitmq, "flixtrail_views_stored_total") == 1, 20, what="the view to be counted")
    assert of_workers(rabbitmq, "flixtrail_deliveries_total", redelivered="yes") >= 1


def test_a_worker_without_its_broker_is_not_healthy_and_says_so(rabbitmq: Demo) -> None:
    (worker, *_) = rabbitmq.status()["workers"]
    with frozen(rabbitmq.status()["broker"]["pid"]):
        until(lambda: health(worker).status == 503, 60, what="the worker to notice", every_s=0.2)
        assert health(worker).json() == {"status": "unhealthy", "detail": "not connected to the broker"}
        assert figure(worker["metrics_url"], "flixtrail_consuming") == 0
    until(lambda: health(worker).status == 200, 30, what="the worker to be healthy again")


def test_a_worker_whose_postgresql_is_away_is_healthy_and_says_that_it_is(rabbitmq: Demo) -> None:
    with refusing(rabbitmq):
        record(rabbitmq)
        until(lambda: of_workers(rabbitmq, "flixtrail_database_up") < 2, 20, what="a worker to notice")
        assert [health(worker).status for worker in rabbitmq.status()["workers"]] == [200, 200]
    until(lambda: of_workers(rabbitmq, "flixtrail_database_up") == 2, 20, what="it to be back")


def test_every_answer_to_a_view_is_counted_by_its_status(demo: Demo) -> None:
    before = {
        status: of_web(demo, "flixtrail_record_requests_total", status=status)
        for status in ("202", "401", "411", "413", "415", "422")
    }
    took = of_web(demo, "flixtrail_record_seconds_count")
    client = Client(demo.url, demo.token("counted"))
    record(demo)
    assert Client(demo.url).post("/api/views", json=a_view()).status == 401
    assert client.post("/api/views", "a view", headers={"Content-Type": "text/plain"}).status == 415
    assert client.post("/api/views", json=a_view(kind="seen")).status == 422
    assert client.post("/api/views", b" " * 2_000_000, headers={"Content-Type": "application/json"}).status == 413
    assert client.post("/api/views", json=a_view(), headers={"Transfer-Encoding": "chunked"}).status == 411
    after = {status: of_web(demo, "flixtrail_record_requests_total", status=status) for status in before}
    assert {status: after[status] - before[status] for status in after if status != "202"} == dict.fromkeys(
        ("401", "411", "413", "415", "422"), 1
    )
    assert after["202"] > before["202"]
    assert of_web(demo, "flixtrail_record_seconds_count") - took >= 4


def test_the_bytes_of_a_video_are_counted_as_they_were_promised(demo: Demo) -> None:
    client, before = Client(demo.url), of_web(demo, "flixtrail_video_bytes_total", sent_by="app")
    (video, *_) = client.get("/api/videos").json()["videos"]
    assert client.get(video["stream_url"], {"Range": "bytes=100-1099"}).status == 206
    assert client.get(video["stream_url"], {"Range": "bytes=999999999-"}).status == 416
    assert HTTP.request("HEAD", demo.url + video["stream_url"]).status == 200
    assert of_web(demo, "flixtrail_video_bytes_total", sent_by="app") - before == 1000
    assert client.get(video["stream_url"]).status == 200
    assert of_web(demo, "flixtrail_video_bytes_total", sent_by="app") - before == 1000 + video["size_bytes"]


def test_the_size_of_the_outbox_is_measured(demo: Demo) -> None:
    assert of_web(demo, "flixtrail_outbox_limit_bytes") == 1024**3
    (demo.state / "outbox" / "something").write_bytes(b"x" * 5000)
    try:
        assert of_web(demo, "flixtrail_outbox_bytes") >= 5000
    finally:
        (demo.state / "outbox" / "something").unlink()
    assert of_web(demo, "flixtrail_outbox_bytes") < 5000 + of_web(demo, "flixtrail_outbox_limit_bytes")


def test_the_history_api_counts_by_route_and_outlives_its_process(demo: Demo) -> None:
    url = demo.status()["history_api"]["metrics_url"]
    history = {"route": "/history", "status": "200"}
    client = Client(demo.url, demo.token("reader"))
    client.history()
    before = figure(url, "flixtrail_history_requests_total", **history)
    client.history()
    assert HTTP.request("GET", url.replace("/metrics", "/history")).status == 401
    assert HTTP.request("GET", url.replace("/metrics", "/nothing/7")).status == 401
    os.kill(demo.status()["history_api"]["pids"][-1], signal.SIGKILL)
    until(lambda: client.get("/api/history").status == 200, 20, what="the history to be back")
    until(lambda: figure(url, "flixtrail_history_requests_total", **history) - before >= 2, what="both to be counted")
    assert figure(url, "flixtrail_history_requests_total", route="/history", status="401") >= 1
    assert figure(url, "flixtrail_history_requests_total", route="none", status="401") >= 1
    assert figure(url, "flixtrail_history_request_seconds_count", route="/history") >= 3
    assert b"/nothing" not in HTTP.request("GET", url).data
