"""`python -m history_worker.migrations` brings the database up to date; run at once by two, the second one waits.

What each role may do is granted here too, by the tables' owner and anew each time (history_worker/roles.py), and the
partitions of the months to come are made (history_worker/partitions.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from history_worker import partitions
from history_worker.roles import grant
from history_worker.settings import DatabaseSettings
from history_worker.tables import SCHEMA_LOCK
from view_events import logs
from view_events.settings import SettingsError, read

log = structlog.get_logger(__name__)


def upgrade(database_url: str) -> None:
    """Apply every migration that the database has not seen, grant, and make partitions. Again it changes nothing."""
    command.upgrade(configuration(database_url), "head")
    engine = partitions.connect_as_owner(database_url)
    try:
        with engine.begin() as connection:
            # Not beside somebody who makes partitions: a grant changes the same rows of the catalogue.
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


def configuration(database_url: str) -> Config:
    """Alembic's."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["database_url"] = database_url
    return config


def main() -> None:
    try:
        settings = read(DatabaseSettings)
    except SettingsError as error:
        sys.exit(f"migrations: {error}")
    logs.configure(settings)
    upgrade(settings.database_url)


if __name__ == "__main__":
    main()
