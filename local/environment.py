"""The environment variables that parts inherit."""

from __future__ import annotations

import compileall
import os
import sys
from pathlib import Path

#: Prefixes of variables that control PostgreSQL's clients, RabbitMQ and Erlang. Those of the user's own servers must
#: not reach the private ones. AMQP_URL and DATABASE_URL are passed on complete, with their passwords.
STEERING = ("PG", "RABBITMQ_", "ERL_", "AMQP_", "DATABASE_")


#: Every Python of ours treats file names as UTF-8, whatever the locale says. Otherwise one would not find the files of
#: the others. And none writes `__pycache__`: parts have the umask 077, so nobody else could read these folders, and the
#: containers of docker-compose.dev.yml would not start. `compile_sources` writes them.
PYTHON = {"PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
PACKAGES = ("view_events", "service", "safe_consumer", "streaming_app", "history_worker", "local", "flixtrail")


def compile_sources() -> None:
    """Compile our modules with this process's umask, if they are new or changed. It takes some seconds, once."""
    if not sys.dont_write_bytecode:
        for package in PACKAGES:
            compileall.compile_dir(Path(__file__).parents[1] / package, quiet=2)


def clean(**more: str) -> dict[str, str]:
    """Return this process's environment without variables that control other servers, and with `more`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(STEERING)}
    return {**inherited, **PYTHON, **more}
