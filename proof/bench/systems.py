"""The systems that are measured: each has a web server, a queue, a worker and a table. Ours, and those in
`proof/bench/peers`.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

from local import ports, service_parts, view_counts
from local.environment import inherited_environment
from local.part import Part
from local.postgres import HISTORY
from local.service_parts import WORKER_PROCESSES
from local.unsupervised_part import POLL_INTERVAL_S, ROOT, Program
from proof.bench.errors import BenchError
from proof.bench.nodes import PEERS, Nodes
from proof.bench.rows import Rows
from service.waiting import wait_until
from streaming_app.access.auth import Tokens
from streaming_app.settings import StreamingSettings
from streaming_app.videos.samples import samples

#: The peers' own environment, because celery-batches needs an older Celery. `make bench` makes it.
PEERS_PYTHON = ROOT / "var" / "bench" / "venv" / "bin" / "python"
#: Seconds to wait until the broker has noticed a closed connection. It notices at once.
CLOSE_TIMEOUT_S = 15
#: The same number as our streaming app.
WEB_PROCESSES = int(StreamingSettings.model_fields["web_processes"].default)
WEB_THREADS = int(StreamingSettings.model_fields["web_threads"].default)

OURS, USUAL, BATCHES, ACTORS, NOOP = "Flixtrail", "usual Celery", "celery-batches", "dramatiq", "no-op Flask route"


class System:
    """One way of recording views. Its programs start when they are first needed."""

    def __init__(self, name: str, nodes: Nodes, web: Part, worker: Part | None, *, queue: str, database: str) -> None:
        self.name = name
        self.queue = queue
        self.path = "/noop" if name == NOOP else "/api/views"
        self.port = int(web.environment["PORT"])
        self._nodes = nodes
        self.database = database
        self.web = Program(web, nodes.state)
        self.worker_part = worker
        self.worker = Program(worker, nodes.state) if worker else None

    @cached_property
    def rows(self) -> Rows:
        return Rows(self._nodes.postgres.url(self.database))

    @cached_property
    def token(self) -> str:
        """An ingest token, which records for any viewer. The peers ignore it."""
        return Tokens(self._nodes.state.secret("secret_key")).ingest()

    def start(self) -> None:
        """Start the web server and the worker. Returns when both accept work."""
        self.start_web()
        self.start_worker()

    def start_web(self) -> None:
        if self.web.processes():
            return
        self.web.start()
        if self.name == OURS:
            url = f"http://127.0.0.1:{self.port}"
            self.web.wait(
                lambda: view_counts.connected_processes(url) >= WEB_PROCESSES, "its processes reached RabbitMQ"
            )
        else:
            self.web.wait(lambda: ports.is_listening(self.port), "it listened")

    def start_worker(self) -> None:
        if self.worker and not self.worker.processes():
            self.worker.start()
            self.worker.wait(lambda: self._nodes.broker.consumers(self.queue) > 0, "it consumed")

    def stop_worker(self) -> None:
        """Stop the worker. Returns when the broker has noticed it: unacknowledged messages are back in the queue."""
        if self.worker is None:
            return
        self.worker.stop()
        broker = self._nodes.broker
        if not wait_until(lambda: not broker.consumers(self.queue), CLOSE_TIMEOUT_S, poll_interval_s=POLL_INTERVAL_S):
            raise BenchError(f"The worker of {self.name} has ended, and RabbitMQ still has a consumer of it.")

    def stop(self) -> None:
        self.web.stop()
        self.stop_worker()

    def groups(self) -> dict[str, list[Program]]:
        """Return the groups of programs whose CPU seconds are counted."""
        return {
            "web": [self.web],
            "worker": [self.worker] if self.worker else [],
            "rabbitmq": [self._nodes.rabbitmq_program],
            "postgres": [self._nodes.postgres_program],
        }


class Systems:
    """All systems by name, on the same RabbitMQ and PostgreSQL."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        names = ("history_api", *(f"web {name}" for name in (OURS, USUAL, BATCHES, ACTORS, NOOP)))
        self._ports = ports.allocate(nodes.state, names)
        self._made: dict[str, System] = {}
        self.videos = samples(nodes.state.cache)

    def __getitem__(self, name: str) -> System:
        if name not in self._made:
            self._made[name] = self.make(name)
        return self._made[name]

    @contextmanager
    def running(self, *names: str) -> Iterator[list[System]]:
        """Run these systems, and only these."""
        systems = [self[name] for name in names]
        try:
            for system in systems:
                system.start()
            yield systems
        finally:
            for system in systems:
                system.stop()

    def stop(self) -> None:
        """Stop everything that runs."""
        for system in self._made.values():
            system.stop()

    def make(self, name: str, database: str | None = None) -> System:
        """Make a system with its own programs. `database` replaces its default database."""
        state, addresses = self.nodes.state, self.addresses(name, database)
        if name in {OURS, NOOP}:
            web = service_parts.web(state, addresses, self.videos)
            if name == NOOP:
                web = dataclasses.replace(web, argv=(sys.executable, "-m", "proof.bench.peers.noop"), name="web-noop")
                return System(name, self.nodes, web, None, queue="history", database=PEERS)
            worker = service_parts.worker(state, "history-worker-1", addresses)
            return System(name, self.nodes, web, worker, queue="history", database=database or HISTORY)
        return self._peer(name)

    def addresses(self, name: str, database: str | None = None) -> service_parts.Addresses:
        return service_parts.Addresses(
            web_port=self._ports[f"web {name}"],
            history_api_port=self._ports["history_api"],
            flower_port=0,
            broker_url=self.nodes.broker_url,
            management_url=None,
            database_url=self.nodes.postgres.url(database or HISTORY),
        )

    def _peer(self, name: str) -> System:
        module = {USUAL: "usual", BATCHES: "batches", ACTORS: "actors"}[name]
        python = python_of(name)
        target = f"proof.bench.peers.{module}"
        port = str(self._ports[f"web {name}"])
        environment = inherited_environment(
            AMQP_URL=self.nodes.broker_url, DATABASE_URL=self.nodes.postgres.url(PEERS), WEB_THREADS=str(WEB_THREADS)
        )
        granian = ("-m", "granian", "--interface", "wsgi", "--no-ws", "--http", "1", "--log-level", "warning")
        size = ("--workers", str(WEB_PROCESSES), "--blocking-threads", str(WEB_THREADS))
        web = Part(
            f"web-{module}",
            (python, *granian, *size, "--host", "127.0.0.1", "--port", port, f"{target}:web"),
            {**environment, "PORT": port},
        )
        quiet: tuple[str, ...] = ("-l", "WARNING", "--without-mingle", "--without-gossip", "--without-heartbeat")
        command: tuple[str, ...] = ("celery", "-A", target, "worker", "-n", f"{module}@%h", "-c", str(WORKER_PROCESSES))
        if name == ACTORS:
            command, quiet = ("dramatiq", target, "--processes", str(WORKER_PROCESSES)), ()
        worker = Part(f"worker-{module}", (python, "-m", *command, *quiet), environment)
        return System(name, self.nodes, web, worker, queue=module, database=PEERS)

    def worker(self, name: str, database_url: str, processes: int, **settings: str) -> Program:
        """Return one more history worker, with this address of the database and these settings."""
        addresses = dataclasses.replace(self.addresses(OURS), database_url=database_url)
        part = service_parts.worker(self.nodes.state, name, addresses)
        argv = list(part.argv)
        argv[argv.index("-c") + 1] = str(processes)
        environment = {**part.environment, **settings}
        return Program(dataclasses.replace(part, argv=tuple(argv), environment=environment), self.nodes.state)

    def history_api_answers(self) -> bool:
        return ports.is_listening(self._ports["history_api"])

    def history_api(self, database: str) -> Program:
        """Return a history API over one database, for the streaming app's pages."""
        part = service_parts.history_api(self.nodes.state, self.addresses(OURS, database))
        return Program(part, self.nodes.state)


def python_of(name: str) -> str:
    """Return the Python with a peer's libraries. Raises BenchError if it is missing."""
    if name not in {BATCHES, ACTORS}:
        return sys.executable
    if not shutil.which(str(PEERS_PYTHON)):
        raise BenchError("The peers' environment is missing in var/bench/venv: `make bench` makes it.")
    return str(PEERS_PYTHON)
