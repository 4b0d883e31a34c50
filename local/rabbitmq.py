"""A private RabbitMQ node with its own name, ports, cookie, user and data. It does not touch the system's node or /etc.

Its `epmd` (Erlang's port mapper) runs under the supervisor, too. Otherwise RabbitMQ leaves one running as a daemon.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from pathlib import Path

from local import ports
from local.environment import inherited_environment
from local.errors import DemoError
from local.part import Part
from local.rabbitmq_programs import HOW_TO_INSTALL, epmd_program, search_path, server_script
from local.state import State
from view_events.topology import ALONE, DEAD_LETTERS, HISTORY

USER = "flixtrail"
VIRTUAL_HOST = "flixtrail"

#: The node's name. Its port mapper is private, so the name does not clash with another node. It does not contain the
#: folder, which may be moved.
NODE = "flixtrail@localhost"

QUEUES = (HISTORY, ALONE, DEAD_LETTERS)

#: Settings that may change later are in a policy, not in the queue's declaration. A message that was redelivered this
#: often may kill its workers, so it moves to `history.alone`, where a worker tries it once more, by itself. The count
#: rises for every message of a killed worker, and in a demo you kill workers to see what happens. 20 is the default of
#: RabbitMQ 4 and later.
POLICIES = [
    {
        "vhost": VIRTUAL_HOST,
        "name": "history",
        "pattern": "^history$",
        "apply-to": "queues",
        "priority": 0,
        "definition": {"delivery-limit": 20},
    }
]


class RabbitMQ:
    """The private node of one state folder."""

    def __init__(self, state: State) -> None:
        self.home = state.safe_path / "rabbitmq"
        self._password = state.secret("broker_password")
        self._cookie = state.secret("erlang_cookie")
        self._ports = ports.allocate(state, ("amqp", "management", "distribution", "epmd"))
        self.node = self._name_on_disk() or NODE

    @property
    def url(self) -> str:
        """The address for AMQP_URL."""
        return f"amqp://{USER}:{self._password}@127.0.0.1:{self._ports['amqp']}/{VIRTUAL_HOST}"

    @property
    def management_url(self) -> str:
        """The address of the HTTP API, with user and password."""
        return f"http://{USER}:{self._password}@127.0.0.1:{self._ports['management']}"

    def configure(self) -> None:
        """Write the node's configuration files."""
        self.home.mkdir(mode=0o700, exist_ok=True)
        self._update_moved_paths()
        cookie = self.home / ".erlang.cookie"
        cookie.unlink(missing_ok=True)
        cookie.write_text(self._cookie)
        cookie.chmod(0o400)
        (self.home / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (self.home / "definitions.json").write_text(json.dumps(self._definitions()))
        (self.home / "rabbitmq.conf").write_text(f"""\
listeners.tcp.1 = 127.0.0.1:{self._ports["amqp"]}
management.tcp.ip = 127.0.0.1
management.tcp.port = {self._ports["management"]}
load_definitions = {self.home}/definitions.json
log.file = false
log.console = true
# `flixtrail watch` needs fresh figures: measured every 250 ms, collected every second (5 by default).
collect_statistics_interval = 250
management.sample_retention_policies.global.minute = 1
management.sample_retention_policies.global.hour = 60
management.sample_retention_policies.basic.minute = 1
management.sample_retention_policies.basic.hour = 60
management.sample_retention_policies.detailed.minute = 1
""")

    def _name_on_disk(self) -> str | None:
        """Return the name under which the node has stored its data. Under another name it does not find them."""
        return next((folder.name for folder in sorted((self.home / "data" / "quorum").glob("*@*"))), None)

    def _update_moved_paths(self) -> None:
        """Adapt the data after the state folder was moved: each quorum queue has a file with the full path of its log.

        With the old path RabbitMQ does not find the log, and refuses every consumer (541 INTERNAL_ERROR).
        """
        for path in self.home.glob("data/quorum/*/*/config"):
            written = path.read_text(errors="surrogateescape")
            here = re.sub(r'"[^"]*/data/quorum/', f'"{self.home}/data/quorum/', written)
            if here != written:
                path.write_text(here, errors="surrogateescape")

    def _definitions(self) -> dict[str, object]:
        """Return the definitions: the node's only user (with definitions there is no guest), its virtual host and
        policies.
        """
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        return {
            "users": [
                {
                    "name": USER,
                    "password_hash": password_hash(self._password),
                    "hashing_algorithm": "rabbit_password_hashing_sha256",
                    "tags": "administrator",
                }
            ],
            "vhosts": [{"name": VIRTUAL_HOST}],
            "permissions": [{"user": USER, "vhost": VIRTUAL_HOST, **everything}],
            "policies": POLICIES,
        }

    def epmd_part(self) -> Part:
        """Return the port mapper as a part, in the foreground."""
        program = epmd_program()
        if program is None:
            raise DemoError("BROKER: 'rabbitmq' needs Erlang (`erl` and `epmd`) on this machine")
        return Part(
            name="epmd",
            argv=(str(program), "-port", str(self._ports["epmd"])),
            environment=inherited_environment(ERL_EPMD_ADDRESS="127.0.0.1"),
            priority=10,
        )

    def part(self) -> Part:
        """Return the node as a part, in the foreground."""
        script = server_script()
        if script is None:
            raise DemoError(f"BROKER: 'rabbitmq' needs rabbitmq-server on this machine. {HOW_TO_INSTALL}")
        home = str(self.home)
        environment = {
            "HOME": home,
            "PATH": search_path(),  # its script calls `erl`
            "RABBITMQ_CONF_ENV_FILE": f"{home}/none",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_CONFIG_FILES": f"{home}/none.d",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{home}/none.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(self._ports["distribution"]),
            "RABBITMQ_MNESIA_BASE": f"{home}/data",
            "RABBITMQ_MNESIA_DIR": f"{home}/data/node",
            "RABBITMQ_QUORUM_DIR": f"{home}/data/quorum",
            "RABBITMQ_FEATURE_FLAGS_FILE": f"{home}/data/feature_flags",
            "RABBITMQ_PLUGINS_EXPAND_DIR": f"{home}/data/plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{home}/data/config",
            "RABBITMQ_PID_FILE": f"{home}/node.pid",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_LOGS": "-",
            # The script then becomes the node itself. Otherwise a shell waits for the node, and reads our input.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_START_ARGS": "-noinput +B i",
            "ERL_EPMD_PORT": str(self._ports["epmd"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_FLAGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
            "ERL_CRASH_DUMP": f"{home}/erl_crash.dump",
            "ERL_CRASH_DUMP_SECONDS": "0",
        }
        return Part(
            name="rabbitmq",
            argv=(str(script),),
            environment=inherited_environment(**environment),
            priority=20,
            # Within 0.1 s it has closed its listeners and its stores. After that, RabbitMQ 3.10 waits 8 s for parts of
            # its own. Confirmed messages are on the disk, so killing it does no harm.
            stop_wait_s=3,
        )

    def is_ready(self) -> bool:
        """Return whether it accepts AMQP connections. It opens this port last."""
        return ports.is_listening(self._ports["amqp"])

    def queue_names_on_disk(self) -> bool:
        """Return whether the queues' names are on the disk. RabbitMQ writes the names of new quorum queues with a
        delay.

        If the node is killed with -9 before that, it does not find a queue's log again and begins the queue anew. Then
        the confirmed messages are lost, and no worker can consume. (Seen on 3.10, up to three seconds after the first
        declaration.)
        """
        written = [path.read_bytes() for path in Path(self.home, "data", "quorum").glob("*/names.dets")]
        return not written or any(all(_as_atom(queue.name) in names for queue in QUEUES) for names in written)


def _as_atom(queue: str) -> bytes:
    """Encode a queue's name like Erlang, with its length, so that it does not match a part of another name."""
    name = f"{VIRTUAL_HOST}_{queue}".encode()
    return bytes([len(name)]) + name


def password_hash(password: str) -> str:
    """Hash a password as RabbitMQ stores it: base64(salt + SHA-256(salt + password)), with a salt of four bytes."""
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
