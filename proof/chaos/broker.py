"""A RabbitMQ that can be killed, frozen and starved: the private node of `make demo`, or any version in a container."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from contextlib import suppress
from typing import Any

import psutil

from local.environment import inherited_environment
from local.errors import DemoError
from local.part import Part
from local.rabbitmq import RabbitMQ
from local.rabbitmq_programs import server_script
from local.state import State

#: Less than any node needs, so the memory alarm is raised at once.
TOO_LITTLE_MEMORY = ("absolute", "1MB")
USUAL_MEMORY = ("0.4",)
#: A node that does not answer its own command line within this many seconds is frozen or gone.
CONTROL_S = 15


class PrivateBroker(RabbitMQ):
    """The node that `make demo` starts. `pid` comes from the supervisor; the caller passes it in."""

    def kill(self, pid: int) -> None:
        """Send SIGKILL."""
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()

    def freeze(self, pid: int) -> None:
        """Send SIGSTOP."""
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).suspend()

    def thaw(self, pid: int) -> None:
        """Send SIGCONT."""
        with suppress(psutil.NoSuchProcess):
            psutil.Process(pid).resume()

    def set_memory(self, *watermark: str) -> bool:
        """Set the memory limit of the running node. Returns False while it does not answer."""
        return self.control("set_vm_memory_high_watermark", *watermark)

    def close(self) -> None:
        """Do nothing: everything of the node is in the state folder."""

    def control(self, *command: str) -> bool:
        """Run `rabbitmqctl`. Returns whether it succeeded."""
        script = server_script()
        assert script, "it was started"
        environment = inherited_environment(
            HOME=str(self.home),
            RABBITMQ_CONF_ENV_FILE=f"{self.home}/none",
            ERL_EPMD_PORT=str(self._ports["epmd"]),
        )
        # Not the wrapper of the same name, which requires the system's user and cookie.
        program = str(script.with_name("rabbitmqctl"))
        return _ran([program, "-n", self.node, "--erlang-cookie", self._cookie, *command], environment)


class BrokerInContainer(RabbitMQ):
    """A node of another version, from its image. The container, and so its disk, exists as long as the run."""

    MORE_SETTINGS = "collect_statistics_interval = 250\n"

    def __init__(self, state: State, image: str) -> None:
        super().__init__(state)
        self._image = image
        # A run of another folder has another container.
        self._name = f"flixtrail-{hashlib.sha256(os.fsencode(state.folder.resolve())).hexdigest()[:12]}"
        self._docker = shutil.which("docker") or "docker"

    def configure(self) -> None:
        """Write the files, and make the container."""
        self.home.mkdir(mode=0o755, exist_ok=True)
        definitions = self.home / "definitions.json"
        definitions.write_text(json.dumps(self._definitions()))
        configuration = self.home / "chaos.conf"
        configuration.write_text(
            # Relative to the machine's memory: inside a container, the node sees all of it.
            f"load_definitions = /chaos/definitions.json\n{self.MORE_SETTINGS}vm_memory_high_watermark.relative = 0.4\n"
        )
        for path in (definitions, configuration):
            path.chmod(0o644)
        self._remove()
        ports = {"amqp": 5672, "management": 15672}
        published = [f"--publish=127.0.0.1:{self._ports[name]}:{inside}" for name, inside in ports.items()]
        mounted = [
            f"--volume={self.home}:/chaos:ro",
            f"--volume={configuration}:/etc/rabbitmq/conf.d/90-chaos.conf:ro",
        ]
        argv = [self._docker, "create", f"--name={self._name}", "--hostname=broker", *published, *mounted, self._image]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoError(f"BROKER_IMAGE: {done.stderr.strip()}")

    def part(self) -> Part:
        """Return Docker's client as a part, in the foreground. It ends with the node, and the supervisor starts both
        again.
        """
        return Part(
            name="rabbitmq",
            argv=(self._docker, "start", "--attach", self._name),
            environment=inherited_environment(),
            priority=20,
            stop_wait_s=3,
        )

    def queue_names_on_disk(self) -> bool:
        """Return True: newer versions write a queue's name to disk before they answer."""
        return True

    def is_ready(self) -> bool:
        """Ask the node itself, because Docker accepts connections at the port from the beginning."""
        return self.control("check_port_listener", "5672", program="rabbitmq-diagnostics")

    def kill(self, _pid: int) -> None:
        """Send SIGKILL to the whole container."""
        self._do("unpause")  # a frozen container cannot be killed
        self._do("kill", "--signal=KILL")

    def freeze(self, _pid: int) -> None:
        """Freeze the whole container, like SIGSTOP."""
        self._do("pause")

    def thaw(self, _pid: int) -> None:
        """Let it continue, like SIGCONT."""
        self._do("unpause")

    def set_memory(self, *watermark: str) -> bool:
        """Set the memory limit of the running node. Returns False while it does not answer."""
        return self.control("set_vm_memory_high_watermark", *watermark)

    def control(self, *command: str, program: str = "rabbitmqctl") -> bool:
        """Run `rabbitmqctl`, or another program of the node, in the container. Returns whether it succeeded."""
        return _ran([self._docker, "exec", self._name, program, *command], dict(os.environ))

    def pid(self) -> int | None:
        """Return the process of the running container. It is no descendant of Docker's client."""
        argv = [self._docker, "inspect", "--format={{.State.Pid}}", self._name]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return int(done.stdout) or None if done.returncode == 0 else None

    def close(self) -> None:
        """Remove the container and its data."""
        self._remove()

    def _remove(self) -> None:
        _ran([self._docker, "rm", "--force", "--volumes", self._name], dict(os.environ))

    def _do(self, verb: str, *options: str) -> None:
        _ran([self._docker, verb, *options, self._name], dict(os.environ))


def _ran(argv: list[str], environment: dict[str, Any]) -> bool:
    try:
        done = subprocess.run(argv, env=environment, capture_output=True, timeout=CONTROL_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
