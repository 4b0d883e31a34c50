"""A private RabbitMQ node: its own name, ports, cookie, user and data; the system's node and /etc are left alone.

Its `epmd` (Erlang's port mapper) runs under the supervisor too: RabbitMQ would otherwise leave one behind as a daemon.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path

from flixtrail.local import ports
from flixtrail.local.environment import clean
from flixtrail.local.errors import DemoError
from flixtrail.local.installed import HOW_TO_INSTALL, epmd_program, server_script
from flixtrail.local.part import Part
from flixtrail.local.state import State
from view_events.topology import ALONE, DEAD_LETTERS, HISTORY

USER = "flixtrail"
VIRTUAL_HOST = "flixtrail"

QUEUES = (HISTORY, ALONE, DEAD_LETTERS)

#: What may change over time is a policy, not part of the queue's declaration. A message that was given back this often
#: may be a killer, and moves to `history.alone`, where it is tried once more by itself: the count of every message that
#: a killed worker held goes up with it, and here workers are killed for show. 20 is what RabbitMQ >= 4 has by default.
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
        self.home = state.folder / "rabbitmq"
        self._password = state.secret("broker_password")
        self._cookie = state.secret("erlang_cookie")
        self._ports = ports.keep(state, ("amqp", "management", "distribution", "epmd"))
        name = hashlib.sha256(str(state.folder).encode()).hexdigest()[:8]
        self.node = f"flixtrail-{name}@localhost"

    @property
    def url(self) -> str:
        """For AMQP_URL."""
        return f"amqp://{USER}:{self._password}@127.0.0.1:{self._ports['amqp']}/{VIRTUAL_HOST}"

    @property
    def management_url(self) -> str:
        """For the HTTP API, with user and password."""
        return f"http://{USER}:{self._password}@127.0.0.1:{self._ports['management']}"

    def configure(self) -> None:
        """Write the node's files."""
        self.home.mkdir(mode=0o700, exist_ok=True)
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
# `flixtrail watch` wants fresh figures: measured every 250 ms, collected every second (5 by default).
collect_statistics_interval = 250
management.sample_retention_policies.global.minute = 1
management.sample_retention_policies.global.hour = 60
management.sample_retention_policies.basic.minute = 1
management.sample_retention_policies.basic.hour = 60
management.sample_retention_policies.detailed.minute = 1
""")

    def _definitions(self) -> dict[str, object]:
        """The node's only user (with definitions there is no guest), its virtual host and policies."""
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
        """The port mapper, in the foreground."""
        program = epmd_program()
        if program is None:
            raise DemoError("BROKER: 'rabbitmq' needs Erlang (`erl` and `epmd`) on this machine")
        return Part(
            name="epmd",
            argv=(str(program), "-port", str(self._ports["epmd"])),
            environment=clean(ERL_EPMD_ADDRESS="127.0.0.1"),
            priority=10,
        )

    def part(self) -> Part:
        """The node, in the foreground."""
        script = server_script()
        if script is None:
            raise DemoError(f"BROKER: 'rabbitmq' needs rabbitmq-server on this machine. {HOW_TO_INSTALL}")
        home = str(self.home)
        environment = {
            "HOME": home,
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
            # The script then becomes the node itself, instead of a shell that waits for it; no shell reads our input.
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
            environment=clean(**environment),
            priority=20,
            # Within 0.1 s it has closed its listeners and its stores. Then it waits 8 s for parts of its own (3.10).
            # What was confirmed is on the disk, and kill -9 is what this project is about.
            stop_wait_s=3,
        )

    def is_ready(self) -> bool:
        """Whether it takes AMQP connections: it opens that port last."""
        return ports.answers(self._ports["amqp"])

    def knows_its_queues(self) -> bool:
        """Whether the queues' names are on the disk. RabbitMQ writes the names of new quorum queues with a delay.

        Killed with -9 before that (seen on 3.10, up to three seconds after the first declaration), the node does not
        find a queue's log again and begins the queue anew: what it had confirmed is gone, and nobody can consume.
        """
        written = [path.read_bytes() for path in Path(self.home, "data", "quorum").glob("*/names.dets")]
        return not written or any(all(_as_atom(queue.name) in names for queue in QUEUES) for names in written)


def _as_atom(queue: str) -> bytes:
    """A queue's name as Erlang writes it: after its length, so that no other name ends or begins with it."""
    name = f"{VIRTUAL_HOST}_{queue}".encode()
    return bytes([len(name)]) + name


def password_hash(password: str) -> str:
    """As RabbitMQ stores a password: base64(salt + SHA-256(salt + password)), salt of four bytes."""
    salt = os.urandom(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
