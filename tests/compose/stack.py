"""One `docker compose` project of its own: up, asked, scaled, killed, and taken down with all it kept."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import urllib3

from flixtrail.commands.secrets import SECRET
from streaming_app.access.auth import Tokens
from tests.client import Client

ROOT = Path(__file__).parents[2]
#: A first build fetches libraries and, where there are none, images.
BUILD_TIMEOUT_S = 900
COMMAND_TIMEOUT_S = 240
#: What publishes a port on this machine, and the variable that names the port.
PORTS = {
    "proxy": "PORT",
    "flower": "FLOWER_PORT",
    "rabbitmq": "RABBITMQ_MANAGEMENT_PORT",
    "prometheus": "PROMETHEUS_PORT",
    "grafana": "GRAFANA_PORT",
    "amqp": "AMQP_PORT",
    "postgres": "POSTGRES_PORT",
    "history-api": "HISTORY_API_PORT",
}


#: What the image and the containers of docker-compose.dev.yml are made from.
SOURCES = (
    *("celeryconfig.py", "view_events", "service", "safe_consumer", "history_worker", "streaming_app", "local"),
    *("flixtrail", "deploy"),
)


def copy_of_sources(folder: Path) -> None:
    """Copy everything into a folder that a stack needs to be built and run there."""
    files = ("requirements", "docker-compose.yml", "docker-compose.dev.yml", "Dockerfile", ".dockerignore")
    for name in (*SOURCES, *files):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, folder / name)


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


@dataclass(frozen=True)
class Done:
    """A command that came to its end."""

    status: int
    out: str
    err: str


class Stack:
    """All of docker-compose.yml under a name, ports and secrets of its own, so that it disturbs nobody else's."""

    def __init__(self, folder: Path = ROOT, files: tuple[str, ...] = ("docker-compose.yml",), **settings: str) -> None:
        self.folder = folder
        self.project = f"flixtrail-test-{secrets.token_hex(4)}"
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        names = dict.fromkeys(SECRET.findall((ROOT / "docker-compose.yml").read_text()))
        self.secrets = {name: secrets.token_hex(16) for name in names}
        self.env = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_FILE": ":".join(files),
            "FLIXTRAIL_IMAGE": f"{self.project}:latest",
            "FLIXTRAIL_DEV_IMAGE": f"{self.project}:latest",
            **{variable: str(self.ports[service]) for service, variable in PORTS.items()},
            **self.secrets,
            "VIDEOS": "",
            **settings,
        }

    def run(
        self,
        *arguments: str,
        data: str | None = None,
        timeout_s: float = COMMAND_TIMEOUT_S,
        settings: Mapping[str, str] | None = None,
    ) -> Done:
        """One `docker compose` command, however it ends."""
        done = subprocess.run(
            ["docker", "compose", "--ansi", "never", "--progress", "plain", *arguments],
            cwd=self.folder,
            env={**self.env, **(settings or {})},
            input=data or "",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def compose(
        self,
        *arguments: str,
        data: str | None = None,
        timeout_s: float = COMMAND_TIMEOUT_S,
        settings: Mapping[str, str] | None = None,
    ) -> str:
        """What the command printed. Fails with what it complained about."""
        done = self.run(*arguments, data=data, timeout_s=timeout_s, settings=settings)
        assert done.status == 0, f"docker compose {' '.join(arguments)}: {done.err[-3000:]}"
        return done.out

    def flixtrail(self, *arguments: str, data: str | None = None) -> Done:
        """The command line in its container, with an operator's rights."""
        return self.run("run", "--rm", "--no-deps", "-T", "flixtrail", *arguments, data=data)

    def up(self, *services: str) -> None:
        done = self.run("up", "--build", "--detach", "--wait", *services, timeout_s=BUILD_TIMEOUT_S)
        assert done.status == 0, f"docker compose up: {done.err[-1500:]}\n{self.complaints()}"

    def complaints(self) -> str:
        """What the health checks of the services that are not healthy answered last, and the end of their logs."""
        told = []
        for container in self.compose("ps", "--all", "--quiet").split():
            about = self.inspect(container)
            health = about["State"].get("Health", {})
            if health.get("Status", "healthy") != "healthy":
                answers = [check["Output"].strip() for check in health["Log"][-3:]]
                said = self.run("logs", "--tail", "40", about["Config"]["Labels"]["com.docker.compose.service"]).out
                told += [f"{about['Name']}: {health['Status']}, {about['State']}", *answers, said]
        return "\n".join(told)

    def scale(self, **replicas: int) -> None:
        """So many of a service, ready, whatever has become of those that were there: `scale(history_worker=4)`."""
        options = [f"--scale={service.replace('_', '-')}={count}" for service, count in replicas.items()]
        services = [service.replace("_", "-") for service in replicas]
        self.compose("up", "--detach", "--wait", "--no-recreate", "--no-deps", *options, *services)

    def down(self) -> None:
        """Leave nothing: no container, no volume, no image."""
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "5")
        subprocess.run(["docker", "image", "rm", "--force", self.env["FLIXTRAIL_IMAGE"]], check=False, timeout=60)

    def containers(self, *services: str) -> list[str]:
        """Their ids, of those that run."""
        return self.compose("ps", "--quiet", *services).split()

    def inspect(self, container: str) -> dict[str, Any]:
        done = subprocess.run(["docker", "inspect", container], check=True, capture_output=True, timeout=30)
        found: dict[str, Any] = json.loads(done.stdout)[0]
        return found

    def kill(self, container: str) -> None:
        """kill -9 of everything in it."""
        subprocess.run(["docker", "kill", container], check=True, capture_output=True, timeout=30)

    def workers(self) -> set[str]:
        """The names of the Celery workers that run, as Celery, RabbitMQ and Flower know them."""
        return {f"history-worker@{container[:12]}" for container in self.containers("history-worker")}

    def logs(self, *services: str) -> list[dict[str, Any]]:
        """What services of ours said, a dictionary a line. (Celery's banner is no JSON.)"""
        lines = self.compose("logs", "--no-color", "--no-log-prefix", *services).splitlines()
        found = []
        for line in lines:
            try:
                found.append(json.loads(line[line.index("{") :]))
            except ValueError:
                continue
        return [line for line in found if isinstance(line, dict)]

    def commits(self) -> list[dict[str, Any]]:
        """What the workers said of each batch: `events`, `stored`, `redelivered`, `task_id`."""
        said = [line for line in self.logs("history-worker") if line.get("event") == "committed"]
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
            command, cwd=self.folder, env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as psql:
            assert psql.stdin is not None
            assert psql.stdout is not None
            psql.stdin.write(f"BEGIN; LOCK TABLE {table}; SELECT 'locked';\n")
            psql.stdin.flush()
            assert psql.stdout.readline() == "locked\n"
            yield
            psql.stdin.close()  # the session ends, and its lock with it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['proxy']}"

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.secrets["SECRET_KEY"])

    def viewer(self, viewer_id: str) -> Client:
        return Client(self.url, self.tokens.viewer(viewer_id))

    @cached_property
    def ingest(self) -> Client:
        return Client(self.url, self.tokens.ingest())

    def ask(self, service: str, path: str, credentials: str | None = None, method: str = "GET") -> Done:
        """What a page for people answers; status 0 while it is away."""
        headers = urllib3.make_headers(basic_auth=credentials) if credentials else {}
        try:
            answer = _http.request(method, f"http://127.0.0.1:{self.ports[service]}{path}", headers=headers)
        except urllib3.exceptions.HTTPError as error:
            return Done(0, "", str(error))
        return Done(answer.status, answer.data.decode(errors="replace"), "")

    def rabbitmq(self, path: str) -> Any:
        """What RabbitMQ's management API answers to the administrator; None while it is away."""
        return _json(self.ask("rabbitmq", f"/api/{path}", f"flixtrail:{self.secrets['RABBITMQ_PASSWORD']}"))

    def flower(self, path: str) -> Any:
        """What Flower's API answers; None while it is away."""
        return _json(self.ask("flower", f"/api/{path}", f"flixtrail:{self.secrets['FLOWER_PASSWORD']}"))

    def prometheus(self, path: str) -> Any:
        """What Prometheus' API answers; None while it is away, or refuses."""
        answer = _json(self.ask("prometheus", f"/api/v1/{path}"))
        return answer and answer["data"]

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


PSQL = ("psql", "--username=flixtrail", "--dbname=flixtrail", "-X", "--quiet", "--no-align", "--tuples-only")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 where nothing listens."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _json(answer: Done) -> Any:
    return json.loads(answer.out) if answer.status == 200 else None


_http = urllib3.PoolManager(retries=False, timeout=10)
