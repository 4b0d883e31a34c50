"""The environment that parts inherit."""

from __future__ import annotations

import os

#: Variables with these beginnings steer PostgreSQL's clients, RabbitMQ and Erlang; those of the person's own servers
#: must not reach the private ones.
STEERING = ("PG", "RABBITMQ_", "ERL_")


def clean(**more: str) -> dict[str, str]:
    """This process's environment without what steers other servers, and with `more`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(STEERING)}
    return {**inherited, **more}
