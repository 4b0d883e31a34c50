"""What can happen to the PostgreSQL of a demo. Each heals at its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from local.processes import process_tree
from tests.conftest import Demo
from tests.waiting import until

POSTGRES = "postgres"


@contextmanager
def killed(demo: Demo) -> Iterator[None]:
    """Dies with -9. The supervisor starts it again, and it recovers."""
    os.kill(demo.status()["database"]["pid"], signal.SIGKILL)
    yield
    until(lambda: answers(demo), 20, what="PostgreSQL to be back")


@contextmanager
def refusing(demo: Demo) -> Iterator[None]:
    """Shut down: whoever connects is refused."""
    supervisor = demo.running().supervisor
    supervisor.stop(POSTGRES)
    until(lambda: supervisor.status()[POSTGRES].stopped, what="PostgreSQL to stop")
    try:
        yield
    finally:
        supervisor.start(POSTGRES)
        until(lambda: answers(demo), 20, what="PostgreSQL to be back")


@contextmanager
def frozen(demo: Demo) -> Iterator[None]:
    """All of its processes stand still: connections stay open, the kernel takes new ones, and nothing answers."""
    processes = process_tree(demo.status()["database"]["pid"])
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


@contextmanager
def read_only(demo: Demo) -> Iterator[None]:
    """As a standby that a failover has not promoted yet."""
    everywhere = "ALTER SYSTEM SET default_transaction_read_only = {}"
    with psycopg.connect(demo.status()["database"]["url"], autocommit=True) as connection:
        connection.execute(everywhere.format("on"))
        connection.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(everywhere.format("off"))
            connection.execute("SELECT pg_reload_conf()")


@contextmanager
def without_its_table(demo: Demo) -> Iterator[None]:
    """As before a migration."""
    with psycopg.connect(demo.status()["database"]["url"], autocommit=True) as connection:
        connection.execute("ALTER TABLE view_events RENAME TO not_yet")
        try:
            yield
        finally:
            connection.execute("ALTER TABLE not_yet RENAME TO view_events")


def answers(demo: Demo) -> bool:
    try:
        with psycopg.connect(demo.status()["database"]["url"], connect_timeout=2) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.Error:
        return False
