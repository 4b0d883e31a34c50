"""The RabbitMQ that the lessons run on: a private node on this machine, or one in a container."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Protocol

import psutil

from lessons.harness.management import Management
from local import leftover_processes
from local.errors import AlreadyRunning, DemoError
from local.ports import allocate
from local.rabbitmq import RabbitMQ
from local.rabbitmq_programs import HOW_TO_INSTALL, is_installed
from local.state import State
from local.unsupervised_part import Program

START_DEADLINE_S = 90
LOOK_EVERY_S = 0.05


class Broker(Protocol):
    """A RabbitMQ on which a lesson is played."""

    @property
    def amqp_url(self) -> str:
        """The address with user and password, without a virtual host: `amqp://user:password@host:port`."""

    @property
    def management_url(self) -> str: ...

    def restart(self, *, kill: bool = False) -> None:
        """Stop it, or kill it with -9, and start it again. Return when it accepts connections."""

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl`, and return its output. Raises DemoError."""


class PrivateNode:
    """A private node on this machine, with its own ports, user and folder."""

    def __init__(self, state: State) -> None:
        self._node = RabbitMQ(state)
        self._node.configure()
        self._epmd = Program(self._node.epmd_part(), state)
        self._program = Program(self._node.part(), state)
        self._environment = dict(self._node.part().environment)

    @property
    def amqp_url(self) -> str:
        return self._node.url.rpartition("/")[0]

    @property
    def management_url(self) -> str:
        return self._node.management_url

    def start(self) -> None:
        self._epmd.start()
        self._begin()

    def stop(self) -> None:
        self._program.stop()
        self._epmd.stop()

    def restart(self, *, kill: bool = False) -> None:
        if kill:
            for process in self._program.processes():
                with suppress(psutil.NoSuchProcess):  # a child ends with its parent
                    process.kill()
        self._program.stop()
        self._begin()

    def ctl(self, *arguments: str) -> str:
        program = Path(self._node.part().argv[0]).with_name("rabbitmqctl")
        return _run(str(program), "-q", "-n", self._node.node, *arguments, environment=self._environment)

    def _begin(self) -> None:
        self._program.start()
        management = Management(self.management_url)
        self._program.wait(lambda: self._node.is_ready() and management.answers(), "it took connections")


class Container:
    """A node in a container, to see what another version does. Its ports are on the loopback address."""

    NAME = "flixtrail-lessons"

    def __init__(self, image: str, state: State) -> None:
        self._image = image
        self._ports = allocate(state, ("container amqp", "container management"))
        self._password = state.secret("broker_password")

    @property
    def amqp_url(self) -> str:
        return f"amqp://flixtrail:{self._password}@127.0.0.1:{self._ports['container amqp']}"

    @property
    def management_url(self) -> str:
        return f"http://flixtrail:{self._password}@127.0.0.1:{self._ports['container management']}"

    def start(self) -> None:
        self.stop()
        # fmt: off
        _run(
            "docker", "run", "--detach", "--name", self.NAME, "--hostname", "lessons",
            "--publish", f"127.0.0.1:{self._ports['container amqp']}:5672",
            "--publish", f"127.0.0.1:{self._ports['container management']}:15672",
            "--env", "RABBITMQ_DEFAULT_USER=flixtrail", "--env", f"RABBITMQ_DEFAULT_PASS={self._password}",
            "--env", "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-rabbit collect_statistics_interval 250",
            self._image,
        )
        # fmt: on
        self._wait()

    def stop(self) -> None:
        subprocess.run(["docker", "rm", "--force", "--volumes", self.NAME], capture_output=True, check=False)

    def restart(self, *, kill: bool = False) -> None:
        _run("docker", "kill" if kill else "stop", self.NAME)
        _run("docker", "start", self.NAME)
        self._wait()

    def ctl(self, *arguments: str) -> str:
        return _run("docker", "exec", self.NAME, "rabbitmqctl", "-q", *arguments)

    def _wait(self) -> None:
        management, deadline = Management(self.management_url), monotonic() + START_DEADLINE_S
        while not management.answers():
            if monotonic() > deadline:
                raise DemoError(f"{self._image} did not answer within {START_DEADLINE_S} s: docker logs {self.NAME}")
            sleep(LOOK_EVERY_S)


@contextmanager
def running(folder: Path, image: str | None = None) -> Iterator[Broker]:
    """Start a broker, and stop it in the end. Raises DemoError if there is no RabbitMQ to start."""
    state = State(folder)
    state.make()
    if image is None and not is_installed():
        raise DemoError(f"The lessons need RabbitMQ on this machine. {HOW_TO_INSTALL}")
    with ExitStack() as stack:
        try:
            stack.enter_context(state.lock())
        except AlreadyRunning:
            raise DemoError(f"Lessons are running on {state.folder} already. STATE=./var2 is another folder.") from None
        leftover_processes.end_all(state.folder)
        state.make_subfolders()
        broker = PrivateNode(state) if image is None else Container(image, state)
        stack.callback(broker.stop)
        broker.start()
        yield broker


def _run(*argv: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment or dict(os.environ))
    if done.returncode:
        raise DemoError(f"{' '.join(argv)}: {done.stderr or done.stdout}")
    return done.stdout
