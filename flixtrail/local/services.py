"""The services as the supervisor runs them: which program, which settings. Each gets the addresses it needs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from flixtrail.local import ports
from flixtrail.local.environment import clean
from flixtrail.local.part import Part
from flixtrail.local.state import State

WEB = "web"
HISTORY_API = "history-api"
FLOWER = "flower"
#: Followed by a number.
WORKER = "history-worker-"

#: The variable that tells a worker where to answer /metrics and /healthz.
METRICS_PORT = "METRICS_PORT"
#: Prefork children of one worker.
WORKER_PROCESSES = 2


@dataclass(frozen=True)
class Addresses:
    """Where everything is."""

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
    """The streaming app. It gets no address of the history database."""
    environment = clean(
        HOST="127.0.0.1",
        PORT=str(addresses.web_port),
        VIDEOS=str(videos or ""),
        CACHE=str(state.cache),
        OUTBOX=str(state.outbox),
        AMQP_URL=addresses.broker_url,
        SECRET_KEY=state.secret("secret_key"),
        HISTORY_API_URL=addresses.history_api_url,
        HISTORY_API_TOKEN=state.secret("history_api_token"),
    )
    environment.pop("DATABASE_URL", None)
    return Part(name=WEB, argv=(sys.executable, "-m", "streaming_app"), environment=environment, priority=50)


def history_api(state: State, addresses: Addresses) -> Part:
    """Answers what was watched."""
    environment = clean(
        DATABASE_URL=addresses.database_url,
        HISTORY_API_HOST="127.0.0.1",
        HISTORY_API_PORT=str(addresses.history_api_port),
        HISTORY_API_TOKEN=state.secret("history_api_token"),
    )
    return Part(
        name=HISTORY_API, argv=(sys.executable, "-m", "history_worker.api"), environment=environment, priority=30
    )


def worker(state: State, name: str, addresses: Addresses) -> Part:
    """One history worker."""
    metrics_port = ports.keep(state, (name,))[name]
    celery: tuple[str, ...] = (sys.executable, "-m", "celery")
    if addresses.management_url:
        # Our own RabbitMQ, which may still be starting.
        celery = (sys.executable, "-m", "flixtrail.local.worker", str(urlsplit(addresses.broker_url).port))
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
            # In learner mode PostgreSQL then knows which of its clients are workers (flixtrail/local/queue.py).
            "PGAPPNAME": name,
        },
        priority=40,
        # TERM: no new deliveries, finish and acknowledge what is being written, leave. Takes 2 s on RabbitMQ, and also
        # in learner mode, where the threads of its pool then take 3 s to end with nothing to do.
        stop_wait_s=4,
    )


def flower(state: State, addresses: Addresses) -> Part:
    """Celery's monitor."""
    environment = service_environment(addresses)
    # In the environment: a command line can be read by every user of the machine.
    environment["FLOWER_BASIC_AUTH"] = f"flixtrail:{state.secret('flower_password')}"
    if addresses.management_url:
        environment["FLOWER_BROKER_API"] = f"{addresses.management_url}/api/"
    celery = (sys.executable, "-m", "celery", "-A", "history_worker.app")
    options = ("--address=127.0.0.1", f"--port={addresses.flower_port}")
    return Part(name=FLOWER, argv=(*celery, "flower", *options), environment=environment, priority=30, stop_wait_s=2)


def migrations() -> tuple[str, ...]:
    """The program that brings the database's tables up to date. It may be run any number of times."""
    return (sys.executable, "-m", "history_worker.migrations", "upgrade")


def service_environment(addresses: Addresses) -> dict[str, str]:
    """What a worker needs, and the migrations."""
    return clean(AMQP_URL=addresses.broker_url, DATABASE_URL=addresses.database_url)
