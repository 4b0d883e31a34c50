"""Each service may do at the broker and in the database what it does, and what lies beside that is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.client import a_view
from tests.compose.asking import BROKER_S, finished_tasks, watched
from tests.compose.stack import Stack
from tests.waiting import until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

#: What each user of the broker may do, of all that tests/compose/inside.py tries. Everything else is refused.
MAY = {
    "streaming-app": {"publish to views", "check history"},
    "history-worker": {
        "publish to views.dead",
        "check history",
        "read history",
        "read views.dead",
    },
    "monitor": {"send workers a command", "listen to events of workers"},
    "operator": {"publish to a queue by its name", "read views.dead", "check history"},
}
#: Who declares may also delete, and who reads may throw away. Tried by those alone who shall not.
OF_ITS_OWNER = {"purge history", "delete history", "delete views", "unbind history"}
#: Passive declarations are free before RabbitMQ 4.2.6, and since 4.3.1 for who has any right there.
ANYBODY = {"check history"}


@pytest.mark.parametrize("user", MAY)
def test_a_user_of_the_broker_may_do_its_work_and_nothing_beside_it(stack: Stack, user: str) -> None:
    password = stack.secrets[f"RABBITMQ_{user.upper().replace('-', '_')}_PASSWORD"]
    script = (Path(__file__).parent / "inside.py").read_text()
    stack.compose("stop", "streaming-app", "history-worker")  # nothing to disturb: one of them may take a message
    try:
        url = f"amqp://{user}:{password}@rabbitmq:5672//"
        left_out = OF_ITS_OWNER if user == "history-worker" else set()
        said = stack.compose("exec", "-T", "flower", "python", "-", url, *left_out, data=script)
        outcomes = json.loads(said)
    finally:
        stack.compose("up", "--detach", "--wait", "--no-recreate", "--no-deps", "history-worker", "streaming-app")
    allowed = {name for name, outcome in outcomes.items() if outcome == "ok"}
    assert allowed - ANYBODY == MAY[user] - ANYBODY
    refused = {outcome for name, outcome in outcomes.items() if name not in allowed}
    assert refused <= {"403", "404", "406"}, outcomes
    assert user != "streaming-app" or "check history" in allowed


def test_the_monitor_can_look_at_workers_and_not_stop_them(stack: Stack) -> None:
    def celery(*arguments: str) -> str:
        done = stack.run("exec", "-T", "flower", "celery", *arguments)
        return done.out + done.err

    (worker,) = stack.workers()
    assert "pong" in celery("inspect", "ping", "--timeout", "5")
    for command in (("shutdown",), ("pool_shrink", "2"), ("cancel_consumer", "history"), ("rate_limit", "x", "1/m")):
        celery("control", "--timeout", "2", *command)
    assert stack.workers() == {worker}
    assert "pong" in celery("inspect", "ping", "--timeout", "5")
    bob = stack.viewer("bob")
    bob.record([a_view()])
    until(lambda: finished_tasks(stack), BROKER_S, what="a task that a worker finished")


@pytest.mark.parametrize(
    ("service", "path"), [("flower", "/"), ("flower", "/api/workers"), ("rabbitmq", "/api/overview")]
)
def test_pages_for_people_need_a_password(stack: Stack, service: str, path: str) -> None:
    assert stack.ask(service, path).status == 401
    assert stack.ask(service, path, "flixtrail:wrong").status == 401
    assert stack.ask(service, path, "guest:guest").status == 401


def test_the_monitor_may_read_the_management_pages_and_change_nothing(stack: Stack) -> None:
    monitor = f"monitor:{stack.secrets['RABBITMQ_MONITOR_PASSWORD']}"
    assert stack.ask("rabbitmq", "/api/queues/%2F/history", monitor).status == 200
    assert stack.ask("rabbitmq", "/api/queues/%2F/history/contents", monitor, "DELETE").status in {401, 403}
    assert stack.ask("rabbitmq", "/api/queues/%2F/history", monitor, "DELETE").status in {401, 403}
    assert stack.ask("rabbitmq", "/api/users", monitor).status in {401, 403}
    streaming_app = f"streaming-app:{stack.secrets['RABBITMQ_STREAMING_APP_PASSWORD']}"
    assert stack.ask("rabbitmq", "/api/overview", streaming_app).status in {401, 403}


@pytest.mark.parametrize(
    ("service", "role", "refused"),
    [
        ("history-worker", "flixtrail_writer", "DELETE FROM view_events"),
        ("history-api", "flixtrail_reader", "DELETE FROM view_events"),
        ("history-api", "flixtrail_reader", "SELECT * FROM erasures"),
        ("history-worker", "flixtrail_writer", "CREATE TABLE mine (x int)"),
    ],
)
def test_a_service_is_its_own_role_in_the_database(stack: Stack, service: str, role: str, refused: str) -> None:
    script = (
        "import os, psycopg\n"
        "password = os.environ['DATABASE_PASSWORD']\n"
        "connection = psycopg.connect(os.environ['DATABASE_URL'], password=password, autocommit=True)\n"
        "print(connection.execute('SELECT current_user').fetchone()[0])\n"
        f"try: connection.execute({refused!r})\n"
        "except psycopg.errors.InsufficientPrivilege: print('refused')\n"
    )
    assert stack.compose("exec", "-T", service, "python", "-", data=script).split() == [role, "refused"]


@pytest.mark.parametrize(
    ("service", "others"),
    [
        ("streaming-app", ["postgres:5432"]),
        ("history-api", ["rabbitmq:5672"]),
        ("flower", ["postgres:5432", "history-api:8001"]),
        ("proxy", ["postgres:5432", "rabbitmq:5672", "history-api:8001"]),
    ],
)
def test_a_service_does_not_reach_what_it_does_not_need(stack: Stack, service: str, others: list[str]) -> None:
    for other in others:
        host, _, port = other.partition(":")
        done = stack.run("exec", "-T", service, "bash", "-c", f"timeout 2 bash -c '</dev/tcp/{host}/{port}'")
        assert done.status != 0, other


def test_the_operator_sees_the_partitions_and_the_migrator_makes_them(stack: Stack) -> None:
    seen = stack.flixtrail("partitions")
    assert "view_events_default" in seen.out, seen.err
    refused = stack.flixtrail("partitions", "make", "--months", "13")
    assert (refused.status, "the role that owns the tables" in refused.err) == (1, True), refused.err
    made = stack.run(
        *("run", "--rm", "--no-deps", "-T", "migrate", "python", "-m", "flixtrail", "partitions"),
        *("make", "--months", "13"),
    )
    assert "made view_events_" in made.out, made.err


def test_a_viewer_is_erased_with_the_erasers_role(stack: Stack) -> None:
    erin = stack.viewer("erin")
    erin.record([a_view()])
    until(lambda: watched(erin), BROKER_S, what="the view in the history")
    done = stack.flixtrail("erase", "erin", "--yes")
    assert "erased erin: 1 view of 1 playback" in done.out, done.err
    assert erin.history() == []


def test_dead_letters_are_looked_at_and_dropped_with_the_operators_user(stack: Stack) -> None:
    stack.flixtrail("dead", "drop", "--all", "--yes")  # what was tried above with the streaming app's user
    poison = (
        "from kombu import Connection; import os\n"
        "with Connection(os.environ['AMQP_URL'], password=os.environ['AMQP_PASSWORD']) as c:\n"
        "    c.Producer().publish('poison', exchange='', routing_key='history', content_type='application/json',\n"
        "                         content_encoding='utf-8', serializer=None)\n"
    )
    stack.compose("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", "flixtrail", "-", data=poison)
    until(lambda: "1 undecodable" in stack.flixtrail("dead", "list").out, BROKER_S, what="the dead letter", every_s=0.5)
    done = stack.flixtrail("dead", "drop", "--all", "--yes")
    assert "dropped: 1 dead letter" in done.out, done.err
