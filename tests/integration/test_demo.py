"""`flixtrail demo` as somebody uses it: start, stop, start again, kill anything, choose settings."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import monotonic, time
from typing import Any

import psutil
import pytest

from history_worker.retention import MONTHS_AHEAD
from tests.client import Client, a_view
from tests.conftest import StartDemo, missing, need_rabbitmq
from tests.demo import ROOT, Demo, environment, program
from tests.waiting import until

#: The promise: a part that dies is started again within a second.
BACK_WITHIN_S = 1.0


@pytest.fixture(params=[pytest.param("rabbitmq", marks=pytest.mark.rabbitmq), "embedded"])
def either(request: pytest.FixtureRequest) -> Demo:
    found: Demo = request.getfixturevalue(f"{request.param}_demo")
    return found


# -- what it prints ------------------------------------------------------------------------------------


def test_it_says_that_it_is_ready_on_a_line_of_its_own(either: Demo) -> None:
    assert [line for line in either.said().splitlines() if line.startswith("ready:")] == [f"ready: {either.url}"]
    assert "\x1b" not in either.said(), "no colours in a pipe"


@pytest.mark.rabbitmq
def test_flower_answers_with_the_password_that_was_printed(rabbitmq_demo: Demo) -> None:
    (line,) = [line for line in rabbitmq_demo.said().splitlines() if "Flower" in line]
    url, password = line.split()[1], line.rstrip(")").split()[-1]
    flower = Client(url)
    until(lambda: _status_of(flower) == 401, 20, what="Flower to answer, and to ask for a password")
    flower.headers["Authorization"] = "Basic " + _base64(f"flixtrail:{password}")
    until(lambda: len(flower.get("/api/workers?refresh=1").json()) == 2, 20, what="Flower to list both workers")

    alice = Client(rabbitmq_demo.url, rabbitmq_demo.cli("token", "--viewer", "alice").strip())

    def finished() -> list[dict[str, Any]]:
        # Of tasks from before it switched events on, a few seconds after its start, Flower hears nothing.
        alice.record([a_view()])
        return list(flower.get("/api/tasks?state=SUCCESS&sort_by=-received").json().values())

    task = until(finished, 20, what="Flower to show a task that is done", every_s=0.5)[0]
    assert task["name"] == "history.record_views"
    assert task["runtime"] > 0
    queues = flower.get("/api/queues/length").json()["active_queues"]
    assert [queue["name"] for queue in queues] == ["history"]


def test_learner_mode_says_what_is_absent(embedded_demo: Demo) -> None:
    assert "Learner mode" in embedded_demo.said()
    assert "apt install rabbitmq-server" in embedded_demo.said()


# -- the command line beside it ------------------------------------------------------------------------


def test_status_names_every_living_process(either: Demo) -> None:
    status = json.loads(either.cli("status", "--json"))
    assert set(status) == {"web", "workers", "history_api", "broker", "database"}
    assert status["web"]["url"] == either.url
    assert [worker["name"] for worker in status["workers"]] == ["history-worker-1", "history-worker-2"]
    pids = [*status["web"]["pids"], *status["history_api"]["pids"], status["broker"]["pid"], status["database"]["pid"]]
    for worker in status["workers"]:
        pids += [worker["pid"], *worker["children"]]
        assert len(worker["children"]) == 2
    assert all(psutil.Process(pid).is_running() for pid in pids)
    table = either.cli("status")
    assert all(word in table for word in ("history-worker-2", "streaming app", "database"))


def test_send_ends_with_what_was_accepted_and_stored(either: Demo) -> None:
    assert either.cli("send", "120").splitlines()[-1] == "accepted 120 stored 120"
    assert either.cli("send", "5", "--rate", "20", "--batch", "1").splitlines()[-1] == "accepted 5 stored 5"


def test_watch_shows_the_queue_the_workers_and_the_counts(either: Demo) -> None:
    shown = either.cli("watch", "--once")
    assert all(word in shown for word in ("history", "ready", "unacked", "redelivered", "history-worker-1", "stored"))


def test_tokens_record_and_read(either: Demo) -> None:
    alice = Client(either.url, either.cli("token", "--viewer", "tokens-alice").strip())
    ingest = Client(either.url, either.cli("token", "--ingest").strip())
    ingest.record([a_view(viewer_id="tokens-alice", position_s=3.0)])
    until(alice.history, 20, what="the view to be stored")
    assert ingest.get("/api/history").status == 403


def test_a_start_makes_the_partitions_of_a_year(embedded_demo: Demo) -> None:
    states = Counter(one["state"] for one in json.loads(embedded_demo.cli("partitions", "--json")))
    # The table itself takes this month and the next.
    assert states["ahead"] >= MONTHS_AHEAD - 2
    assert (states["current"], states["default"]) == (1, 1)
    assert "nothing is missing" in embedded_demo.cli("partitions", "make")


def test_workers_come_and_go(embedded_demo: Demo) -> None:
    def workers() -> dict[str, str]:
        return {worker.name: worker.state for worker in embedded_demo.running().workers()}

    try:
        embedded_demo.cli("workers", "add")
        until(lambda: workers().get("history-worker-3") == "running", what="a third worker")
        embedded_demo.cli("workers", "freeze", "3")
        assert workers()["history-worker-3"] == "frozen"
        embedded_demo.cli("workers", "thaw")
        assert workers()["history-worker-3"] == "running"
        embedded_demo.cli("workers", "stop", "history-worker-3")
        assert workers()["history-worker-3"] == "stopped"
        assert len(embedded_demo.status()["workers"]) == 2
        assert "there is no worker" in embedded_demo.cli("workers", "kill", "9", status=1)
    finally:
        embedded_demo.cli("workers", "stop", "3")


# -- a part dies ---------------------------------------------------------------------------------------


@pytest.mark.rabbitmq
@pytest.mark.parametrize("part", ["web", "history-api", "history-worker-1", "flower", "postgres", "rabbitmq"])
def test_a_part_that_is_killed_is_back_within_a_second(rabbitmq_demo: Demo, part: str) -> None:
    running = rabbitmq_demo.running()
    until(lambda: running.status()[part].pid, what=f"{part} to run")
    # For longer than a second: one that dies at its start is given more time.
    until(lambda: _age_s(running.status()[part].pid) > 2, what=f"{part} to have started")
    before = running.status()[part].pid
    assert before
    os.kill(before, signal.SIGKILL)
    killed = monotonic()
    until(lambda: running.status()[part].pid not in {before, None}, what=f"{part} to be started again")
    assert monotonic() - killed < BACK_WITHIN_S
    until(lambda: f"{part} died (process {before})" in rabbitmq_demo.said(), what="the demo to say so")
    rabbitmq_demo.settled()
    assert rabbitmq_demo.cli("send", "20").splitlines()[-1] == "accepted 20 stored 20"


# -- the life of a demo --------------------------------------------------------------------------------


def test_it_leaves_nothing_behind_and_finds_its_history_again(demo: StartDemo) -> None:
    first = demo()
    second = subprocess.run(
        [*program(), "demo"],
        env=environment(STATE=str(first.state), PORT="1"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert f"A demo is running on {first.state} already at {first.url}" in second.stderr

    ids = Client(first.url, first.token("alice")).record([a_view(), a_view()])
    until(lambda: len(Client(first.url, first.token("alice")).history()) == 2, what="the views to be stored")
    first.stop()
    assert not (first.state / "demo.lock").exists()
    assert "No demo is running" in first.cli("status", status=1)

    again = demo()
    assert len(Client(again.url, again.token("alice")).history()) == len(ids)
    assert again.status()["database"]["pid"] != first.process.pid


@pytest.mark.parametrize("broker", [pytest.param("rabbitmq", marks=pytest.mark.rabbitmq), "embedded"])
def test_it_recovers_from_kill_9_of_everything(demo: StartDemo, broker: str) -> None:
    if broker == "rabbitmq":
        need_rabbitmq()
    first = demo(BROKER=broker)
    first.cli("workers", "freeze")
    ids = Client(first.url, first.token("alice")).record([a_view() for _ in range(20)])
    first.kill_everything()

    again = demo(BROKER=broker, PORT=str(first.port))
    alice = Client(again.url, again.token("alice"))
    until(lambda: len(alice.history()) == len(ids), 40, what="what was accepted before to be stored")
    assert again.cli("send", "20").splitlines()[-1] == "accepted 20 stored 20"


def test_everything_stops_when_the_program_itself_is_killed(demo: StartDemo) -> None:
    if not shutil.which("setpriv"):
        missing("setpriv (util-linux) on this machine")
    one = demo()
    one.process.kill()
    one.process.wait()
    until(lambda: not one.processes(), 20, what="its parts to be stopped")


def test_a_killed_supervisor_is_replaced(demo: StartDemo) -> None:
    one = demo()
    (supervisor,) = (process for process in one.processes() if "supervisor.supervisord" in process.cmdline())
    supervisor.kill()
    until(lambda: "the supervisor died" in one.said(), what="the demo to notice")
    until(lambda: one.process.poll() is None and _answers(one), 40, what="views to be accepted again")
    one.settled()
    assert one.cli("send", "20").splitlines()[-1] == "accepted 20 stored 20"


def test_a_part_that_does_not_come_up_is_named_with_the_end_of_its_log(demo: StartDemo, tmp_path: Path) -> None:
    data = tmp_path / "state" / "postgres"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9.6\n")
    broken = demo(ready=False)
    assert broken.process.wait(40) == 1
    assert f"postgres did not start. The end of {broken.state}/log/postgres.log:" in broken.said()
    assert "\n  | " in broken.said()
    assert not broken.processes()


# -- settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"PORT": "abc"}, "PORT"),
        ({"OUTBOX_BYTES": "5"}, "OUTBOX_BYTES"),
        ({"HOLD_S": "-1"}, "HOLD_S"),
        ({"PORT": "70000"}, "PORT"),
        ({"WORKERS": "0"}, "WORKERS"),
        ({"BROKER": "foo"}, "BROKER"),
        ({"VIDEOS": "/nope"}, "VIDEOS"),
        ({"AMQP_URL": "http://x"}, "AMQP_URL"),
    ],
)
def test_a_wrong_setting_is_named_on_one_line(settings: dict[str, str], named: str) -> None:
    done = start(STATE="/nonexistent/state", **settings)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{named}: ")
    assert settings[named] in line


def test_a_taken_port_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = start(STATE=str(tmp_path / "state"), PORT=port)
    assert done.returncode == 1
    assert f"PORT: {port} on 127.0.0.1 is taken" in done.stderr
    assert not (tmp_path / "state" / "demo.lock").exists()


def test_an_ordinary_user_runs_it(demo: StartDemo, tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() != 0:
        return  # then every other test has shown it
    if not shutil.which("setpriv"):
        missing("setpriv (util-linux) on this machine")
    folder = tmp_path_factory.mktemp("nobody")
    folder.chmod(0o777)
    one = demo(folder / "state", prefix=as_nobody(), HOME=str(folder))
    owner = psutil.Process(one.process.pid).uids()
    assert all(process.uids() == owner for process in one.processes())
    assert Client(one.url, one.token("alice")).record([a_view()])
    until(lambda: Client(one.url, one.token("alice")).history(), what="the view to be stored")


def as_nobody() -> tuple[str, ...]:
    """What to put before a command so that it runs as an ordinary user."""
    folders = [*Path(sys.base_prefix).parents, Path(sys.base_prefix), *ROOT.parents, ROOT]
    if all(folder.stat().st_mode & 0o001 for folder in folders):
        return ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    # Python or the checkout lies where only root may enter, as below /root. In a namespace of its own root goes by
    # another number, has no power, and enters its own folders.
    return ("unshare", "--user", "--map-user=65534", "--map-group=65534")


# -- small helpers -------------------------------------------------------------------------------------


def start(**settings: str) -> subprocess.CompletedProcess[str]:
    """`flixtrail demo`, which is expected to end by itself."""
    return subprocess.run(
        [*program(), "demo"],
        env=environment(**settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _age_s(pid: int | None) -> float:
    try:
        return time() - psutil.Process(pid).create_time() if pid else 0
    except psutil.NoSuchProcess:
        return 0


def _answers(demo: Demo) -> bool:
    try:
        return bool(Client(demo.url, demo.token("alice")).post("/api/views", json=a_view()).status == 202)
    except Exception:  # noqa: BLE001 (any: it is being started)
        return False


def _status_of(client: Client) -> int | None:
    try:
        return client.get("/api/workers").status
    except Exception:  # noqa: BLE001 (any: it is being started)
        return None


def _base64(text: str) -> Any:
    import base64

    return base64.b64encode(text.encode()).decode()
