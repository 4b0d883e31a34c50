"""A private PostgreSQL for tests that need nothing else."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, text

from history_worker.store.migrations.__main__ import upgrade
from local.postgres import Postgres
from local.state import State
from local.unsupervised_part import Program
from service.database import connect


@contextmanager
def a_server() -> Iterator[str]:
    """The SQLAlchemy URL of an empty database on a server of its own. Gone afterwards."""
    state = State(Path(tempfile.mkdtemp(prefix="flixtrail-test-")))
    state.make_subfolders()
    postgres = Postgres(state)
    postgres.initialise()
    server = Program(postgres.part(), state)
    server.start()
    try:
        server.wait(postgres.is_ready, "it took connections")
        postgres.create_databases(learner_mode=False)
        yield postgres.url().replace("postgresql://", "postgresql+psycopg://")
    finally:
        server.stop()
        state.remove_runtime_files()
        shutil.rmtree(state.folder, ignore_errors=True)


@contextmanager
def a_database() -> Iterator[str]:
    """The SQLAlchemy URL of a fresh, migrated history database. Gone afterwards."""
    with a_server() as url:
        upgrade(url)
        yield url


def an_empty(url: str, pool_size: int = 8) -> Engine:
    """An engine on it, with empty tables."""
    engine = connect(url, pool_size=pool_size)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE view_events, playbacks, erasures, erased_events"))
    return engine
