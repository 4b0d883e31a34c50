"""Alembic's environment: one connection, a transaction a migration, one migrator at a time."""

from alembic import context
from sqlalchemy import NullPool, create_engine, text

from history_worker.tables import SCHEMA_LOCK, metadata

engine = create_engine(context.config.attributes["database_url"], poolclass=NullPool)
with engine.connect() as connection:
    # The session's, not a transaction's: a migration may commit in between. It goes with the connection.
    connection.execute(text(f"SELECT pg_advisory_lock({SCHEMA_LOCK})"))
    connection.commit()
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
