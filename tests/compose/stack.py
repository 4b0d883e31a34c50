"""One `docker compose` project of its own: up, asked, scaled, killed, and taken down with all it kept."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import urllib3

from streaming_app.auth import Tokens
from tests.client import Client

ROOT = Path(__file__).parents[2]
#: A first build fetches libraries and, where there are none, images.
BUILD_TIMEOUT_S = 900
COMMAND_TIMEOUT_S = 240


def missing() -> str | None:
    """Why compose cannot run on this machine; None where it can."""
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=30)
        except FileNotFoundError:
            return "docker is not installed"
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return f"`{' '.join(command)}` fails"
    return None


class Stack:
    """All of docker-compose.yml under a name, ports and secrets of its own, so that it disturbs nobody else's."""

    def __init__(self) -> None:
        self.project = f"flixtrail-test-{secrets.token_hex(4)}"
        self.secret_key, self._password = secrets.token_hex(16), secrets.token_hex(16)
        self.web_port, self.flower_port, self.management_port = free_ports(3)
        self._env = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "FLIXTRAIL_IMAGE": f"{self.project}:latest",
            "PORT": str(self.web_port),
            "FLOWER_PORT": str(self.flower_port),
            "RABBITMQ_MANAGEMENT_PORT": str(self.management_port),
            "SECRET_KEY": self.secret_key,
            "HISTORY_API_TOKEN": self._password,
            "POSTGRES_PASSWORD": self._password,
            "RABBITMQ_PASSWORD": self._password,
            "FLOWER_PASSWORD": self._password,
            "VIDEOS": "",
        }

    def compose(self, *arguments: str, timeout_s: float = COMMAND_TIMEOUT_S) -> str:
        """What the command printed. Fails with what it complained about."""
        command = ["docker", "compose", "--ansi", "never", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self._env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-3000:]}"
        return done.stdout

    def up(self) -> None:
        self.compose("up", "--build", "--detach", "--wait", timeout_s=BUILD_TIMEOUT_S)

    def scale(self, workers: int) -> None:
        """So many history workers, ready, whatever has become of those that were there."""
        self.compose("up", "--detach", "--wait", "--no-recreate", "--scale", f"history-worker={workers}")

    def down(self) -> None:
        """Leave nothing: no container, no volume, no image."""
        self.compose("down", "--volumes", "--timeout", "5")
        subprocess.run(["docker", "image", "rm", "--force", self._env["FLIXTRAIL_IMAGE"]], check=False, timeout=60)

    def kill(self, container: str) -> None:
        """kill -9 of everything in it."""
        subprocess.run(["docker", "kill", container], check=True, capture_output=True, timeout=30)

    def workers(self) -> set[str]:
        """The names of the Celery workers that run, as Celery, RabbitMQ and Flower know them."""
        containers = self.compose("ps", "--quiet", "history-worker").split()
        return {f"history-worker@{container[:12]}" for container in containers}

    def commits(self) -> list[dict[str, Any]]:
        """What the workers said of each batch: `events`, `stored`, `redelivered`, `task_id`."""
        lines = self.compose("logs", "--no-log-prefix", "history-worker").splitlines()
        # Celery's banner is no JSON.
        said = [json.loads(line[line.index("{") :]) for line in lines if '"event": "committed"' in line]
        assert all({"events", "stored", "redelivered", "task_id"} <= line.keys() for line in said)
        return said

    def psql(self, query: str) -> list[str]:
        """The rows of the answer, as text."""
        return self.compose("exec", "-T", "postgres", *PSQL, "-c", query).splitlines()

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Nobody reads or writes the table meanwhile: the workers hold what they have been delivered."""
        command = ["docker", "compose", "exec", "-T", "postgres", *PSQL]
        with subprocess.Popen(
            command, cwd=ROOT, env=self._env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as psql:
            assert psql.stdin is not None
            assert psql.stdout is not None
            psql.stdin.write(f"BEGIN; LOCK TABLE {table}; SELECT 'locked';\n")
            psql.stdin.flush()
            assert psql.stdout.readline() == "locked\n"
            yield
            psql.stdin.close()  # the session ends, and its lock with it

    def viewer(self, viewer_id: str) -> Client:
        return Client(f"http://127.0.0.1:{self.web_port}", Tokens(self.secret_key).viewer(viewer_id))

    @cached_property
    def ingest(self) -> Client:
        return Client(f"http://127.0.0.1:{self.web_port}", Tokens(self.secret_key).ingest())

    def rabbitmq(self, path: str) -> Any:
        """What RabbitMQ's management API answers; None while it is away."""
        return _ask(f"http://127.0.0.1:{self.management_port}/api/{path}", f"flixtrail:{self._password}")

    def flower(self, path: str) -> Any:
        """What Flower's API answers; None while it is away."""
        return _ask(f"http://127.0.0.1:{self.flower_port}/api/{path}", f"flixtrail:{self._password}")

    def holding(self) -> dict[str, int]:
        """How many messages each worker holds unacknowledged."""
        names = {
            connection["name"]: connection["client_properties"].get("connection_name")
            for connection in self.rabbitmq("connections") or []
        }
        held = {
            names.get(channel["connection_details"]["name"]): channel["messages_unacknowledged"]
            for channel in self.rabbitmq("channels") or []
            if channel.get("messages_unacknowledged")
        }
        return {worker: count for worker, count in held.items() if worker is not None}


PSQL = ("psql", "--username=flixtrail", "--no-psqlrc", "--quiet", "--no-align", "--tuples-only")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 where nothing listens."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _ask(url: str, credentials: str) -> Any:
    try:
        answer = _http.request("GET", url, headers=urllib3.make_headers(basic_auth=credentials))
    except urllib3.exceptions.HTTPError:
        return None
    return answer.json() if answer.status == 200 else None


_http = urllib3.PoolManager(retries=False, timeout=10)
