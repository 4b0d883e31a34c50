"""What exactly was tested: the commit, and the versions of the important software."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from kombu import Connection
from sqlalchemy import NullPool, create_engine, make_url, text

from view_events.topology import is_amqp

ROOT = Path(__file__).parent.parent.parent
LIBRARIES = ("celery", "kombu", "amqp", "flask", "granian", "psycopg", "sqlalchemy")
CONNECT_S = 2


def servers(broker_url: str, database_url: str) -> dict[str, str]:
    """Return the versions of RabbitMQ and PostgreSQL; `?` for one that does not answer."""
    return {"RabbitMQ": _rabbitmq(broker_url), "PostgreSQL": _postgresql(database_url)}


def libraries() -> dict[str, str]:
    """Return the versions of Python and of the services' libraries."""
    return {"Python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def commit() -> str:
    """Return the commit of the sources, with `-dirty` if they were changed since; `unknown` outside a repository."""
    # Without git's locks, because a commit may be in progress.
    argv = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _rabbitmq(url: str) -> str:
    if not is_amqp(url):
        return "none (learner mode)"
    try:
        with Connection(url, connect_timeout=CONNECT_S) as connection:
            return str(connection.connection.server_properties["version"])
    except Exception:  # noqa: BLE001 (whatever it is: a report without it is better than none)
        return "?"


def _postgresql(url: str) -> str:
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return str(connection.execute(text("SHOW server_version")).scalar_one()).partition(" ")[0]
    except Exception:  # noqa: BLE001 (as above)
        return "?"
