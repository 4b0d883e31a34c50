"""The services as parts for the supervisor: their programs and settings. Each gets only the addresses that it needs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from local import ports
from local.environment import inherited_environment
from local.part import Part
from local.state import State

WEB = "web"
HISTORY_API = "history-api"
FLOWER = "flower"
#: Prefix of a worker's name; a number follows.
WORKER = "history-worker-"

#: The variable with the port where a worker serves /metrics and /healthz.
METRICS_PORT = "METRICS_PORT"
#: Prefork child processes of one worker.
WORKER_PROCESSES = 2


@dataclass(frozen=True)
class Addresses:
    """The addresses of all parts."""

    web_port: int
    history_api_port: int
    flower_port: int
    broker_url: str
    management_url: str | None
    database_url: str

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def history_api_url(self) -> str:
        return f"http://127.0.0.1:{self.history_api_port}"

    @property
    def flower_url(self) -> str:
        return f"http://127.0.0.1:{self.flower_port}"


def web(state: State, addresses: Addresses, videos: Path | None) -> Part:
    """Return the streaming app. It does not get the address of the history database."""
    environment = inherited_environment(
        HOST="127.0.0.1",
        PORT=str(addresses.web_port),
        VIDEOS=str(videos or ""),
        CACHE=str(state.cache),
        OUTBOX=str(state.outbox),
        AMQP_URL=addresses.broker_url,
        SECRET_KEY=state.secret("secret_key"),
        REVOKED_TOKENS=str(state.revoked_tokens),
        HISTORY_API_URL=addresses.history_api_url,
        HISTORY_API_TOKEN=state.secret("history_api_token"),
        # The viewer of a demo is its operator, so the page "About" links to these pages.
        FLOWER_PAGE="" if addresses.broker_url.startswith("pgmq") else addresses.flower_url,
        RABBITMQ_PAGE=_without_password(addresses.management_url or ""),
    )
    environment.pop("DATABASE_URL", None)
    return Part(name=WEB, argv=(sys.executable, "-m", "streaming_app"), environment=environment, priority=50)


def _without_password(url: str) -> str:
    """Return the address without its password, because everybody may see it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}" if url else ""


def history_api(state: State, addresses: Addresses) -> Part:
    """Return the history API, which serves what was watched."""
    environment = inherited_environment(
        DATABASE_URL=addresses.database_url,
        HISTORY_API_HOST="127.0.0.1",
        HISTORY_API_PORT=str(addresses.history_api_port),
        HISTORY_API_TOKEN=state.secret("history_api_token"),
    )
    return Part(
        name=HISTORY_API, argv=(sys.executable, "-m", "history_worker.api"), environment=environment, priority=30
    )


def worker(state: State, name: str, addresses: Addresses) -> Part:
    """Return one history worker."""
    metrics_port = ports.allocate(state, (name,))[name]
    celery: tuple[str, ...] = (sys.executable, "-m", "celery")
    if addresses.management_url:
        # Our own RabbitMQ may still be starting, so the worker waits for its port.
        celery = (sys.executable, "-m", "local.worker_launcher", str(urlsplit(addresses.broker_url).port))
    options = (
        "-A",
        "history_worker.app",
        "worker",
        "-n",
        f"{name}@%h",
        "-c",
        str(WORKER_PROCESSES),
        "--without-mingle",
        "--without-gossip",
    )
    return Part(
        name=name,
        argv=(*celery, *options),
        environment={
            **service_environment(addresses),
            METRICS_PORT: str(metrics_port),
            # In learner mode PostgreSQL then knows which of its clients are workers (local/queue.py).
            "PGAPPNAME": name,
        },
        priority=40,
        # After SIGTERM a worker takes no new deliveries, finishes and acknowledges what it writes, and ends. That takes
        # 2 s on RabbitMQ. In learner mode it takes 3 s more, until the idle threads of its pool end.
        stop_wait_s=4,
    )


def flower(state: State, addresses: Addresses) -> Part:
    """Return Flower, Celery's monitor."""
    environment = service_environment(addresses)
    # In the environment, because every user of the machine can read a command line.
    environment["FLOWER_BASIC_AUTH"] = f"flixtrail:{state.secret('flower_password')}"
    if addresses.management_url:
        environment["FLOWER_BROKER_API"] = f"{addresses.management_url}/api/"
    celery = (sys.executable, "-m", "celery", "-A", "history_worker.app")
    options = ("--address=127.0.0.1", f"--port={addresses.flower_port}")
    return Part(name=FLOWER, argv=(*celery, "flower", *options), environment=environment, priority=30, stop_wait_s=2)


def migrations() -> tuple[str, ...]:
    """Return the program that upgrades the database's tables. It may run any number of times."""
    return (sys.executable, "-m", "history_worker.store.migrations", "upgrade")


def service_environment(addresses: Addresses) -> dict[str, str]:
    """Return the variables that a worker and the migrations need."""
    return inherited_environment(AMQP_URL=addresses.broker_url, DATABASE_URL=addresses.database_url)
