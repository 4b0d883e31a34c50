"""The environment variables that parts inherit."""

from __future__ import annotations

import compileall
import os
import sys
from pathlib import Path

#: Prefixes of variables that control PostgreSQL's clients, RabbitMQ and Erlang. Those of the user's own servers must
#: not reach the private ones. AMQP_URL and DATABASE_URL are passed on complete, with their passwords.
SERVER_VARIABLES = ("PG", "RABBITMQ_", "ERL_", "AMQP_", "DATABASE_")


#: Every Python of ours treats file names as UTF-8, whatever the locale says. Otherwise one does not find the files of
#: the others. None of them writes `__pycache__`: parts have the umask 077, so nobody else can read what they write, and
#: then the containers of docker-compose.dev.yml do not start. `compile_sources` writes these folders.
PYTHON_VARIABLES = {"PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
PACKAGES = ("view_events", "service", "safe_consumer", "streaming_app", "history_worker", "local", "flixtrail")


def compile_sources() -> None:
    """Compile our modules with this process's umask, if they are new or changed. It takes some seconds, once."""
    if not sys.dont_write_bytecode:
        for package in PACKAGES:
            compileall.compile_dir(Path(__file__).parents[1] / package, quiet=2)


def inherited_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without variables that control other servers, and with `more`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(SERVER_VARIABLES)}
    return {**inherited, **PYTHON_VARIABLES, **more}
