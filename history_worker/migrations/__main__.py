"""`python -m history_worker.migrations` brings the database up to date; run at once by two, the second one waits.

What each role may do is granted here too, by the tables' owner and anew each time (history_worker/roles.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool, create_engine

from history_worker.roles import grant
from history_worker.settings import DatabaseSettings
from view_events import logs
from view_events.settings import SettingsError, read


def upgrade(database_url: str) -> None:
    """Apply every migration that the database has not seen, and grant. Doing it again changes nothing."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.begin() as connection:
        grant(connection)


def main() -> None:
    try:
        settings = read(DatabaseSettings)
    except SettingsError as error:
        sys.exit(f"migrations: {error}")
    logs.configure(settings)
    upgrade(settings.database_url)


if __name__ == "__main__":
    main()
