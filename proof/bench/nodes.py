"""The private RabbitMQ and PostgreSQL of a benchmark. Every run has new ports and folders."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from time import sleep
from typing import Self

import psutil
import psycopg

from local import leftover_processes, service_parts
from local.environment import inherited_environment
from local.errors import AlreadyRunning
from local.postgres import HISTORY, Postgres
from local.processes import process_tree
from local.rabbitmq import RabbitMQ
from local.rabbitmq_programs import HOW_TO_INSTALL, is_installed
from local.state import State
from local.unsupervised_part import ROOT, Program
from proof.bench.broker import Broker
from proof.bench.errors import BenchError, NotSafe
from proof.chaos.broker import BrokerInContainer

#: The peers' rows: the same columns and key as ours, but nothing derived from them.
PEERS = "peers"
PEERS_TABLE = """
CREATE TABLE view_events (
    event_id uuid PRIMARY KEY, viewer_id text NOT NULL, video_id text NOT NULL, playback_id uuid NOT NULL,
    kind text NOT NULL, position_s float8 NOT NULL, played_from_s float8, at timestamptz NOT NULL,
    received_at timestamptz NOT NULL)
"""
#: If one of these is off, a crash of the machine loses committed data. Figures from such a server are worthless.
SAFE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
#: PostgreSQL itself is asked when a row was committed. The memory is as its manual advises: a quarter of the machine's,
#: of which 1 GB is enough here. The default is 128 MB. https://www.postgresql.org/docs/18/runtime-config-resource.html
MORE_SETTINGS = "\ntrack_commit_timestamp = on\nshared_buffers = 1GB\n"
#: Settings of the demo's node that collect figures four times a second for its live view. A benchmark does not need
#: them.
MONITORING = re.compile(r"^(management|collect_statistics).*\n", re.MULTILINE)


class UnmonitoredContainer(BrokerInContainer):
    """A node in a container that collects figures as rarely as RabbitMQ does by default."""

    MORE_SETTINGS = ""


class ContainerProgram(Program):
    """A node in a container."""

    def __init__(self, node: BrokerInContainer, state: State) -> None:
        super().__init__(node.part(), state)
        self._node = node

    def processes(self) -> list[psutil.Process]:
        """Return the node's processes, not Docker's client."""
        return process_tree(self._node.pid())


class Nodes:
    """Both servers, from their start to their end. Use it with `with`. Raises BenchError, DemoError.

    `broker_image`: the image of a RabbitMQ to run in a container. Without it, the installed one runs.
    """

    broker: Broker

    def __init__(self, folder: Path, broker_image: str = "") -> None:
        self.state = State(folder)
        self._broker_image = broker_image
        self._started: list[Program] = []
        self._at_end = ExitStack()

    def __enter__(self) -> Self:
        if not self._broker_image and not is_installed():
            raise BenchError(f"`make bench` needs RabbitMQ on this machine. {HOW_TO_INSTALL}")
        self.state.make()
        try:
            self._at_end.enter_context(self.state.lock())
        except AlreadyRunning:
            raise BenchError(f"A benchmark is running on {self.state.folder} already: wait for its end.") from None
        try:
            self._clear()
            self.state.make_subfolders()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for program in reversed(self._started):
            program.stop()
        self._clear()
        self._at_end.close()

    def _clear(self) -> None:
        """End the processes of this run, or of an earlier one that was killed, and delete its data. Logs stay."""
        data = self.state.folder / "postgres"
        leftover_processes.end_all(self.state.folder)
        self.state.remove_runtime_files()
        for folder in (data, self.state.folder / "rabbitmq", self.state.outbox):
            shutil.rmtree(folder, ignore_errors=True)

    def _start(self) -> None:
        shutil.rmtree(self.state.logs, ignore_errors=True)
        self.state.make_subfolders()
        rabbitmq = self._configure_broker()
        self.postgres = Postgres(self.state)
        self.postgres.initialise()
        with (self.postgres.data / "postgresql.conf").open("a") as file:
            file.write(MORE_SETTINGS)
        self.postgres_program = Program(self.postgres.part(), self.state)
        epmd = []
        if isinstance(rabbitmq, BrokerInContainer):
            self.rabbitmq_program: Program = ContainerProgram(rabbitmq, self.state)
        else:
            self.rabbitmq_program = Program(rabbitmq.part(), self.state)
            epmd = [Program(rabbitmq.epmd_part(), self.state)]
        for program in (*epmd, self.postgres_program, self.rabbitmq_program):
            self._started.append(program)
            program.start()
        self.postgres_program.wait(self.postgres.is_ready, "PostgreSQL took connections")
        self.postgres.create_databases(learner_mode=False)
        self._refuse_unsafe()
        self.create_peers()
        self.migrate(HISTORY)
        self.rabbitmq_program.wait(rabbitmq.is_ready, "RabbitMQ took connections")
        sleep(1)  # PostgreSQL's own start continues for a moment
        self.broker_url = rabbitmq.url
        self.broker = Broker(rabbitmq.url)
        self.broker.declare_topology()

    def _configure_broker(self) -> RabbitMQ:
        if self._broker_image:
            container = UnmonitoredContainer(self.state, self._broker_image)
            self._at_end.callback(container.close)
            container.configure()
            return container
        rabbitmq = RabbitMQ(self.state)
        rabbitmq.configure()
        configuration = rabbitmq.home / "rabbitmq.conf"
        configuration.write_text(MONITORING.sub("", configuration.read_text()))
        (rabbitmq.home / "enabled_plugins").write_text("[].\n")
        return rabbitmq

    def _refuse_unsafe(self) -> None:
        for name, value in self.settings(SAFE).items():
            if value != SAFE[name]:
                raise NotSafe(f"PostgreSQL has {name} = {value}: set it to {SAFE[name]}, or nothing is measured.")

    def settings(self, names: Mapping[str, str] | list[str]) -> dict[str, str]:
        """Return the values of PostgreSQL's settings."""
        with psycopg.connect(self.postgres.url("postgres")) as connection:
            query = "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)"
            return dict(connection.execute(query, (list(names),)).fetchall())

    def create_database(self, name: str) -> None:
        with psycopg.connect(self.postgres.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())

    def create_peers(self) -> None:
        self.create_database(PEERS)
        with psycopg.connect(self.postgres.url(PEERS)) as connection:
            connection.execute(PEERS_TABLE)

    def migrate(self, database: str) -> None:
        """Make our tables with our own migrations."""
        environment = inherited_environment(DATABASE_URL=self.postgres.url(database))
        done = subprocess.run(service_parts.migrations(), env=environment, cwd=ROOT, capture_output=True, text=True)  # noqa: PLW1510
        if done.returncode:
            raise BenchError(f"The migrations failed:\n{done.stdout}{done.stderr}")
