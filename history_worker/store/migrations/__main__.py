"""Brings the database up to date: `python -m history_worker.store.migrations`.

If two run at once, the second one waits. It also grants each role its rights, each time anew and as the tables' owner
(history_worker/store/roles.py). And it makes the partitions of the next months (history_worker/store/partitions.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from history_worker.settings import DatabaseSettings
from history_worker.store import partitions
from history_worker.store.roles import grant
from history_worker.store.tables import SCHEMA_LOCK
from service import logs
from service.database import is_outage, sqlstate
from service.settings import SettingsError, read

log = structlog.get_logger(__name__)


def upgrade(database_url: str) -> None:
    """Apply missing migrations, grant rights, and make partitions. A second run changes nothing."""
    command.upgrade(configuration(database_url), "head")
    engine = partitions.connect_as_owner(database_url)
    try:
        with engine.begin() as connection:
            # Partitions must not be made meanwhile: a grant changes the same rows of the catalogue.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"))
            grant(connection)
        try:
            partitions.make(engine, partitions.clock(engine))
        except DBAPIError as error:
            if not partitions.is_held_up(error):
                raise
            log.warning("partitions are not made: somebody holds the tables. Without one, views go to the default one")
    finally:
        engine.dispose()


def is_refused(error: DBAPIError) -> bool:
    """Return whether the user is refused: 28 login, 3D000 no such database, 42501 no privilege."""
    return (sqlstate(error) or "").startswith(("28", "3D000", "42501"))


def configuration(database_url: str) -> Config:
    """Make Alembic's configuration."""
    config = Config()
    # Alembic reads this value like one in an ini file, where `%` begins an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["database_url"] = database_url
    return config


def main() -> None:
    try:
        settings = read(DatabaseSettings)
    except SettingsError as error:
        sys.exit(f"migrations: {error}")
    logs.configure(settings)
    try:
        upgrade(settings.database_url)
    except DBAPIError as error:
        if not (is_outage(error) or is_refused(error)):
            raise
        # PostgreSQL's own words: "password authentication failed", "database ... does not exist", "permission denied".
        sys.exit(f"migrations: {' '.join(str(error.orig).split())}")


if __name__ == "__main__":
    main()
