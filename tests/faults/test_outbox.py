"""The outbox of a streaming app without a broker: bounded, and there for the next process, and the next start."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit
from uuid import uuid4

import pytest

from streaming_app.access.auth import Tokens
from streaming_app.recording.outbox import waiting_in
from tests.client import Client, a_view
from tests.conftest import Demo
from tests.faults.accepting import accepted, stored_once, streams_and_lives
from tests.faults.workers import Management
from tests.waiting import until
from tests.web import start, web_server
from view_events.topology import VIEWS

pytestmark = pytest.mark.rabbitmq

SECRET = "a-secret-of-enough-length"
MEGABYTE = 1024 * 1024


def test_views_of_a_machine_that_was_killed_before_it_ever_saw_a_broker_arrive(
    rabbitmq_demo: Demo, clips: Path, tmp_path: Path
) -> None:
    viewer_id = f"early-{uuid4()}"
    with web_server(tmp_path, clips, SECRET_KEY=SECRET) as web:
        client = Client(web.url, Tokens(SECRET).viewer(viewer_id))
        ids = [accepted(client, a_view()) for _ in range(30)]
        streams_and_lives(client)
        for pid in [*(worker.pid for worker in web.workers()), web.process.pid]:
            os.kill(pid, signal.SIGKILL)
        web.process.wait()
        assert waiting_in(tmp_path / "outbox") == len(ids)
        with web_server(tmp_path, clips, SECRET_KEY=SECRET, AMQP_URL=rabbitmq_demo.status()["broker"]["url"]):
            until(lambda: not waiting_in(tmp_path / "outbox"), 20, what="the outbox to be empty")
    stored_once(rabbitmq_demo, viewer_id, ids)


def test_a_full_outbox_refuses_with_all_that_is_needed_to_send_again(
    rabbitmq_demo: Demo, clips: Path, tmp_path: Path
) -> None:
    viewer_id = f"busy-{uuid4()}"
    settings = {"SECRET_KEY": SECRET, "OUTBOX_BYTES": str(MEGABYTE), "WEB_PROCESSES": "1"}
    with web_server(tmp_path, clips, **settings) as web:
        client = Client(web.url, Tokens(SECRET).viewer(viewer_id))
        ids: list[str] = []
        for _ in range(40):
            views = [a_view() for _ in range(250)]
            answer = client.post("/api/views", json=views)
            if answer.status != 202:
                break
            ids += answer.json()["event_ids"]
        assert len(ids) > 1000
        assert answer.status == 503, answer.data
        assert int(answer.headers["Retry-After"]) >= 1
        refused = [view["event_id"] for view in views]
        assert answer.json()["event_ids"] == refused
        assert sum(file.stat().st_size for file in (tmp_path / "outbox").glob("*.sqlite")) <= MEGABYTE
        assert client.get("/readyz").status == 503
        streams_and_lives(client)
    settings["AMQP_URL"] = rabbitmq_demo.status()["broker"]["url"]
    with web_server(tmp_path, clips, **settings) as web:
        client = Client(web.url, Tokens(SECRET).viewer(viewer_id))
        until(lambda: client.post("/api/views", json=views).status == 202, 20, what="views to be accepted again")
        until(lambda: not waiting_in(tmp_path / "outbox"), 20, what="the outbox to be empty")
    stored_once(rabbitmq_demo, viewer_id, ids + refused)


@contextmanager
def narrow_user(demo: Demo) -> Iterator[tuple[str, Callable[[str], None]]]:
    """A user of the broker who may write some routing keys only: its URL, and what says which (a pattern)."""
    broker = demo.status()["broker"]["url"]
    name, management = f"narrow-{uuid4()}", Management(demo)
    management.ask(f"/users/{name}", "PUT", {"password": "narrow", "tags": ""})
    vhost = quote(urlsplit(broker).path[1:], safe="")
    management.ask(f"/permissions/{vhost}/{name}", "PUT", {"configure": "", "write": ".*", "read": ".*"})

    def let_through(pattern: str) -> None:
        keys = {"exchange": VIEWS.name, "write": pattern, "read": ".*"}
        management.ask(f"/topic-permissions/{vhost}/{name}", "PUT", keys)

    yield broker.replace(urlsplit(broker).netloc.rpartition("@")[0], f"{name}:narrow"), let_through
    management.ask(f"/users/{name}", "DELETE")


def test_a_kind_that_the_broker_refuses_holds_up_no_other_and_is_sent_once_it_may_pass(
    rabbitmq_demo: Demo, clips: Path, tmp_path: Path
) -> None:
    viewer_id = f"refused-{uuid4()}"
    outbox = tmp_path / "outbox"
    with narrow_user(rabbitmq_demo) as (url, let_through):
        let_through(r"^view\.progress$")
        settings = {"SECRET_KEY": SECRET, "AMQP_URL": url, "WEB_PROCESSES": "1"}
        with web_server(tmp_path, clips, **settings) as web:
            client = Client(web.url, Tokens(SECRET).viewer(viewer_id))
            refused = [accepted(client, a_view(kind="finished")) for _ in range(3)]
            others: list[str] = []

            def sorted_out() -> bool:
                others.append(accepted(client, a_view()))
                return not waiting_in(outbox)

            until(sorted_out, 30, what="the refused views to be put aside", every_s=0.1)
            stored_once(rabbitmq_demo, viewer_id, others)
            assert "the broker refuses a view for good" in web.log.read_text()
        let_through(".*")
        with web_server(tmp_path, clips, **settings):
            until(lambda: not list(outbox.glob("*.sqlite")), 20, what="what was put aside to be sent")
    stored_once(rabbitmq_demo, viewer_id, [*refused, *others])


def test_an_outbox_folder_that_cannot_be_written_stops_the_start_with_its_name(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("a file")
    web = start(tmp_path, clips)
    assert web.process.wait(20) == 2
    assert re.search(r"OUTBOX: .* is a file, expected a folder", web.log.read_text())
