"""`flixtrail demo` as somebody uses it: start, stop, start again, kill anything, choose settings."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import monotonic, time
from typing import IO, Any

import psutil
import pytest

from history_worker.store.retention import MONTHS_AHEAD
from local import ports
from local.service_parts import WORKER_PROCESSES
from tests.client import Client, a_view
from tests.conftest import StartDemo, missing, need_rabbitmq
from tests.demo import HARD_NAME, ROOT, Demo, environment, free_port, program
from tests.waiting import until

#: The promise: what is wrong with a broker or a database of one's own is told within so long.
TOLD_WITHIN_S = 20  #: 5 s, and what Python takes to start on a machine that does eight other things
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
    # It asks every question that it knows: of these depends what the worker's own page shows.
    questions = {"stats", "active_queues", "registered", "scheduled", "active", "reserved", "revoked", "conf"}
    for worker in flower.get("/api/workers?refresh=1").json():
        assert worker in flower.get("/workers").data.decode()

        def known(worker: str = worker) -> dict[str, Any]:
            (answers,) = flower.get(f"/api/workers?refresh=1&workername={worker}").json().values()
            return answers if {*answers} >= questions else {}

        answers = until(known, 20, what="an answer to every question", every_s=0.5)
        assert answers["stats"]["pool"]["max-concurrency"] == WORKER_PROCESSES
        assert [queue["name"] for queue in answers["active_queues"]] == ["history"]
        assert "history.record_views" in answers["registered"]

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
    flower = {"flower"} if status["broker"]["kind"] == "rabbitmq" else set()
    assert set(status) == {"web", "workers", "history_api", "broker", "database", *flower}
    if flower:
        assert status["flower"].keys() >= {"url", "user", "password"}
        assert status["flower"]["url"] in either.said()
        assert "Flower" in either.cli("status")
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


# -- a redelivery, as the banner and README promise it --------------------------------------------------


def test_the_banner_says_commands_that_can_be_pasted_from_where_the_reader_stands(either: Demo) -> None:
    """In another folder, with nothing in the environment that says which demo is meant."""
    lines = [line.strip() for line in either.said().splitlines()]
    change, tour, *_ = [line for line in lines if line.startswith("cd ") or "flixtrail tour" in line]
    pasted = f"{change}\n{tour.rpartition('  ')[0]} --help"
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["sh", "-c", pasted], env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if "rabbitmq" in either.said().lower() and not either.running().learner_mode:
        assert re.search(r"RabbitMQ's pages +http://127\.0\.0\.1:\d+ +\(user flixtrail, password \w+\)", either.said())


def test_the_tour_shows_a_redelivery(either: Demo) -> None:
    either.settled()
    said = either.cli("tour", timeout_s=150)
    assert "\x1b" not in said
    held = re.search(r"was killed .*; it had (\d+) unacknowledged messages? \((\d+) views?\)", " ".join(said.split()))
    assert held
    assert int(held[1]) >= 1
    last = said.splitlines()[-1]
    found = re.fullmatch(r"tour: accepted=(\d+) stored=(\d+) redelivered=(\d+)", last)
    assert found, last
    assert found[1] == found[2]
    assert int(found[3]) >= 1


def test_a_worker_that_is_killed_while_views_come_slowly_holds_some(either: Demo, tmp_path: Path) -> None:
    either.settled()
    file = tmp_path / "watched"

    def counted() -> list[tuple[int, int]]:
        """Accepted and stored, line by line, while the outbox was empty."""
        lines = re.findall(r"accepted ([\d,]+)  outbox 0  stored ([\d,]+)", file.read_text())
        return [(int(accepted.replace(",", "")), int(stored.replace(",", ""))) for accepted, stored in lines]

    def since_the_first() -> tuple[int, int]:
        first, last = counted()[0], counted()[-1]
        return last[0] - first[0], last[1] - first[1]

    def each_holds_some(watched: str) -> bool:
        return bool(re.search(r"history-worker-1 running [1-9].* history-worker-2 running [1-9]", watched))

    with file.open("w") as out, start_cli(either, "watch", stdout=out) as watching:
        try:
            until(counted, 20, what="the first line")
            with start_cli(either, "send", "--slow", "240") as sending:
                until(lambda: _unacked(either) >= 4, 30, what="workers to hold messages")
                until(lambda: each_holds_some(file.read_text()), 30, what="`watch` to say what each worker holds")
                said = either.cli("workers", "kill")
                assert re.search(r"; it had [1-9]\d* unacknowledged messages? \([1-9]\d* views?\)\n", said)
                assert sending.communicate(timeout=90)[0].splitlines()[-1] == "accepted 240 stored 240"
            either.settled()
            until(lambda: since_the_first() == (240, 240), 20, what="as many stored as accepted")
            watching.send_signal(signal.SIGINT)
            watching.wait(timeout=20)
        finally:
            watching.kill()
    watched = file.read_text()
    assert "\x1b" not in watched, "plain lines in a file"
    assert "is gone: it had" in watched
    either.settled()


def test_a_frozen_worker_says_what_it_holds_and_when_others_get_it(either: Demo) -> None:
    either.settled()
    said = either.cli("workers", "freeze", "1")
    try:
        assert "history-worker-1 is frozen" in said
        assert "it has" in said
        assert re.search(r"in about \d+ s, at|In \d+ s at the latest", said)
        assert "frozen already" in either.cli("workers", "freeze", "1", status=1)
        if not either.running().learner_mode:
            # With ten views a request, as the README says; the other worker writes what it gets.
            assert either.cli("watch", "--once").count("closes its connection in")
            with start_cli(either, "send", "1000") as sending:
                until(lambda: _unacked(either) >= 5, 20, what="the frozen worker to hold messages")
                until(lambda: either.running().queue().figures().ready == 0, 20, what="all to be delivered")
                said = either.cli("workers", "kill", "1")
                assert sending.communicate(timeout=90)[0].splitlines()[-1] == "accepted 1000 stored 1000"
            held = re.search(r"it had (\d+) unacknowledged messages? \((\d+) views?\)", said)
            assert held, said
            assert int(held[1]) <= int(held[2]) <= 1000
    finally:
        either.cli("workers", "kill", "1")
    either.settled()


@pytest.mark.parametrize("action", ["freeze", "thaw", "stop", "kill", "add"])
@pytest.mark.parametrize("name", ["", " ", "history-worker-99x", "\x1b[31m", "-1", "9" * 40])
def test_a_name_that_no_worker_has_touches_none(embedded_demo: Demo, action: str, name: str) -> None:
    before = [(worker.name, worker.pid, worker.state) for worker in embedded_demo.running().workers()]
    done = subprocess.run(
        [*program(), "workers", action, "--", name],
        env=environment(STATE=str(embedded_demo.state)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {1, 2}
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert [(worker.name, worker.pid, worker.state) for worker in embedded_demo.running().workers()] == before


def test_poison_becomes_a_dead_letter(either: Demo) -> None:
    before = either.running().queue().figures().dead
    assert "cannot be stored" in either.cli("poison")
    assert either.running().queue().figures().dead == before + 1
    if not either.running().learner_mode:
        assert "1 database" in either.cli("dead", "list")
        either.cli("dead", "drop", "--all", "--yes")
    else:
        assert "needs RabbitMQ" in either.cli("poison", "--kills-worker", status=1)
    either.settled()


@pytest.mark.rabbitmq
def test_poison_that_kills_its_worker_becomes_a_dead_letter(rabbitmq_demo: Demo) -> None:
    rabbitmq_demo.cli("poison", "--kills-worker", timeout_s=130)
    assert "1 delivery-limit" in rabbitmq_demo.cli("dead", "list")
    rabbitmq_demo.cli("dead", "drop", "--all", "--yes")
    rabbitmq_demo.settled()


def _unacked(demo: Demo) -> int:
    return demo.running().queue().figures().unacked


def start_cli(demo: Demo, *arguments: str, stdout: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
    """`flixtrail ARGUMENTS` in the background, into a pipe or a file."""
    return subprocess.Popen(
        [*program(), *arguments],
        env=environment(STATE=str(demo.state)),
        cwd=ROOT,
        stdout=stdout,
        text=True,
    )


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


def test_it_leaves_nothing_behind_and_finds_its_history_again(start_demo: StartDemo) -> None:
    first = start_demo()
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
    assert re.search(rf"\n  STATE={first.state}2 PORT=1 .*demo$", second.stderr.strip()), "a command that can be pasted"

    ids = Client(first.url, first.token("alice")).record([a_view(), a_view()])
    until(lambda: len(Client(first.url, first.token("alice")).history()) == 2, what="the views to be stored")
    first.stop()
    assert not (first.state / "demo.lock").exists()
    assert "No demo is running" in first.cli("status", status=1)

    again = start_demo()
    assert len(Client(again.url, again.token("alice")).history()) == len(ids)
    assert again.status()["database"]["pid"] != first.process.pid


@pytest.mark.parametrize("broker", [pytest.param("rabbitmq", marks=pytest.mark.rabbitmq), "embedded"])
def test_it_recovers_from_kill_9_of_everything_also_in_another_folder(start_demo: StartDemo, broker: str) -> None:
    if broker == "rabbitmq":
        need_rabbitmq()
    first = start_demo(BROKER=broker)
    first.cli("workers", "freeze")
    ids = Client(first.url, first.token("alice")).record([a_view() for _ in range(20)])
    first.kill_everything()

    # And its folder is moved.
    moved = first.state.rename(first.state.with_name(HARD_NAME))
    again = start_demo(moved, BROKER=broker, PORT=str(first.port))
    alice = Client(again.url, again.token("alice"))
    until(lambda: len(alice.history()) == len(ids), 40, what="what was accepted before to be stored")
    assert again.cli("send", "20").splitlines()[-1] == "accepted 20 stored 20"


def test_everything_stops_when_the_program_itself_is_killed(start_demo: StartDemo) -> None:
    if not shutil.which("setpriv"):
        missing("setpriv (util-linux) on this machine")
    one = start_demo()
    one.process.kill()
    one.process.wait()
    until(lambda: not one.processes(), 20, what="its parts to be stopped")


def test_a_killed_supervisor_is_replaced(start_demo: StartDemo) -> None:
    one = start_demo()
    (supervisor,) = (process for process in one.processes() if "supervisor.supervisord" in process.cmdline())
    supervisor.kill()
    until(lambda: "the supervisor died" in one.said(), what="the demo to notice")
    until(lambda: one.process.poll() is None and _answers(one), 40, what="views to be accepted again")
    one.settled()
    assert one.cli("send", "20").splitlines()[-1] == "accepted 20 stored 20"


def test_a_part_that_does_not_come_up_is_named_with_the_end_of_its_log(start_demo: StartDemo, tmp_path: Path) -> None:
    data = tmp_path / "state" / "postgres"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9.6\n")
    broken = start_demo(ready=False)
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
    suggested = re.search(r"PORT=(\d+) .*demo$", done.stderr.strip())
    assert suggested
    assert ports.is_free(int(suggested[1]))
    assert not (tmp_path / "state" / "demo.lock").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"AMQP_URL": "amqp://a:my-secret@127.0.0.1:{closed}/x"}, "AMQP_URL: amqp://a:***@127.0.0.1:{closed}/x: "),
        ({"AMQP_URL": "amqp://a:my-secret@127.0.0.1:{silent}/x"}, "does not answer|no answer"),
        ({"DATABASE_URL": "postgresql://a:my-secret@127.0.0.1:{closed}/x"}, "Connection refused"),
        ({"DATABASE_URL": "postgresql://a:my-secret@127.0.0.1:{silent}/x"}, "does not answer|timeout"),
    ],
)
def test_a_server_that_is_not_there_is_told_within_seconds(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        addresses = {"closed": free_port(), "silent": silent.getsockname()[1]}
        began = monotonic()
        done = start(STATE=str(tmp_path / "state"), **{name: url.format(**addresses) for name, url in settings.items()})
        took_s = monotonic() - began
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.search(said.format(**addresses).replace("***", r"\*\*\*"), line)
    assert "my-secret" not in line
    assert took_s < TOLD_WITHIN_S


@pytest.mark.rabbitmq
@pytest.mark.parametrize(("change", "said"), [("password", "ACCESS_REFUSED"), ("vhost", "NOT_ALLOWED")])
def test_what_the_broker_refuses_is_told_in_its_own_word(
    rabbitmq_demo: Demo, tmp_path: Path, change: str, said: str
) -> None:
    url = rabbitmq_demo.status()["broker"]["url"]
    wrong = re.sub(r":[^:@/]+@", ":my-secret@", url) if change == "password" else f"{url}-of-nobody"
    began = monotonic()
    done = start(STATE=str(tmp_path / "state"), AMQP_URL=wrong)
    assert monotonic() - began < TOLD_WITHIN_S
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert said in line
    assert "my-secret" not in line


def test_a_database_that_is_not_there_is_told_in_postgresqls_own_words(embedded_demo: Demo, tmp_path: Path) -> None:
    url = embedded_demo.running().database_url.replace("/flixtrail?", "/nobodys?")
    done = start(STATE=str(tmp_path / "state"), DATABASE_URL=url)
    assert 'database "nobodys" does not exist' in done.stderr
    migrations = subprocess.run(
        [sys.executable, "-m", "history_worker.store.migrations"],
        env=environment(DATABASE_URL=url),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert migrations.returncode == 1
    (line,) = migrations.stderr.splitlines()
    assert 'database "nobodys" does not exist' in line


def test_a_reader_that_goes_away_does_not_stop_it_halfway(start_demo: StartDemo) -> None:
    """`make demo | tee log`: Ctrl-C ends `tee` as well."""
    one = start_demo(prefix=("sh", "-c", '"$@" | head -c 20', "-"), ready=False)
    until(lambda: one.said().startswith("waiting"), what="the first line")
    until(lambda: (one.state / "state.json").exists() and _answers(one), 60, what="views to be accepted")
    for process in psutil.Process(one.process.pid).children():
        process.send_signal(signal.SIGINT)
    one.process.wait(30)
    until(lambda: not one.processes(), 10, what="all parts to end")
    assert "Traceback" not in one.said()
    assert "Error" not in one.said()


def test_an_ordinary_user_runs_it(start_demo: StartDemo, tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() != 0:
        return  # then every other test has shown it
    if not shutil.which("setpriv"):
        missing("setpriv (util-linux) on this machine")
    folder = tmp_path_factory.mktemp("nobody")
    folder.chmod(0o777)
    one = start_demo(folder / "state", prefix=as_nobody(), HOME=str(folder))
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
