"""Alembic's environment: each migration is one transaction, and only one process migrates at a time."""

from alembic import context
from sqlalchemy import text

from history_worker.store.tables import SCHEMA_LOCK, metadata
from service.database import NO_TIMEOUTS, connect

engine = connect(context.config.attributes["database_url"], pool_size=2, answer_timeout_s=None, timeouts=NO_TIMEOUTS)
# A migration may commit in between, so a second transaction has the lock. A session lock would not do: a pooler in
# transaction mode would lend the session, with the lock, to another client.
with engine.begin() as lock:
    lock.execute(text(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"))
    with engine.connect() as connection:
        context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
engine.dispose()
