"""Partitions `view_events` by its key: one partition a month, and a default partition for all other ids.

The existing table becomes the first partition, without a copy, whatever its size. It gets all ids up to a month that
has not begun. Writers go on. They wait twice, for a catalogue change each: no longer than LOCK_TIMEOUT_MS plus the time
of the change. PostgreSQL checks in between, while they write, that all ids lie below the bound.

Workers of the previous version write into the new table as before. history_worker/store/partitions.py makes the
partitions of the months.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

revision = "0003"
down_revision = "0002"

#: While a migration waits for a table, everybody who comes later waits behind it. So it waits only for a moment, then
#: lets them pass, and tries again.
LOCK_TIMEOUT_MS = 1_000
STEP_BACK_S = (0.2, 1.0)
PATIENCE_S = 120
#: Ids may be a day ahead. The bound is further ahead, so that no id reaches it while the table changes.
AHEAD = timedelta(days=31)

_IS_PARTITIONED = sa.text("SELECT relkind = 'p' FROM pg_class WHERE oid = 'public.view_events'::regclass")


def upgrade() -> None:
    """Partition the table. You may interrupt this anywhere and run it again."""
    connection = op.get_bind()
    if connection.execute(_IS_PARTITIONED).scalar_one():
        return
    month, bound = _bound()
    timeout = f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; SET LOCAL statement_timeout = 0;"
    beyond = connection.execute(sa.text("SELECT EXISTS (SELECT FROM view_events WHERE event_id >= :b)"), {"b": bound})
    if not beyond.scalar_one():
        # ATTACH needs no scan under its exclusive lock if a validated constraint exists.
        with op.get_context().autocommit_block():
            constraint = f"""
                {timeout}
                ALTER TABLE view_events
                 DROP CONSTRAINT IF EXISTS view_events_before,
                  ADD CONSTRAINT view_events_before CHECK (event_id < '{bound}') NOT VALID
            """
            _patiently(lambda: op.execute(constraint))
            op.execute("ALTER TABLE view_events VALIDATE CONSTRAINT view_events_before")
    connection = op.get_bind()
    before = f"view_events_before_{month}"
    # Copies the existing grants, so that no service loses its rights meanwhile.
    swap = sa.text(f"""
        {timeout}
        LOCK TABLE view_events IN ACCESS EXCLUSIVE MODE;
        ALTER TABLE view_events RENAME TO {before};
        ALTER INDEX view_events_pkey RENAME TO {before}_pkey;
        CREATE TABLE view_events (LIKE {before}, CONSTRAINT view_events_pkey PRIMARY KEY (event_id))
               PARTITION BY RANGE (event_id);
        CREATE TABLE view_events_default PARTITION OF view_events DEFAULT;
        WITH beyond AS (DELETE FROM {before} WHERE event_id >= '{bound}' RETURNING *)
        INSERT INTO view_events_default SELECT * FROM beyond;
        ALTER TABLE view_events ATTACH PARTITION {before} FOR VALUES FROM (MINVALUE) TO ('{bound}');
        ALTER TABLE {before} DROP CONSTRAINT IF EXISTS view_events_before;
        {_grants(before, "view_events")}
    """)  # noqa: S608 (names of ours)

    def to_the_savepoint() -> None:
        with connection.begin_nested():  # a lock timeout then rolls back nothing else
            connection.execute(swap)

    _patiently(to_the_savepoint)


def downgrade() -> None:
    """Copy every row back into one table. Nothing can read or write meanwhile. Detached partitions stay as they are."""
    op.execute(f"""
        ALTER TABLE view_events RENAME TO view_events_partitioned;
        ALTER INDEX view_events_pkey RENAME TO view_events_partitioned_pkey;
        CREATE TABLE view_events (LIKE view_events_partitioned);
        INSERT INTO view_events SELECT * FROM view_events_partitioned;
        ALTER TABLE view_events ADD CONSTRAINT view_events_pkey PRIMARY KEY (event_id);
        {_grants("view_events_partitioned", "view_events")}
        DROP TABLE view_events_partitioned;
    """)  # noqa: S608 (names of ours)


def _bound() -> tuple[str, UUID]:
    """Return the first month that begins after AHEAD: its name, and its smallest id."""
    ahead = datetime.now(UTC) + AHEAD
    begin = datetime(ahead.year + ahead.month // 12, ahead.month % 12 + 1, 1, tzinfo=UTC)
    return f"{begin:%Y_%m}", UUID(int=int(begin.timestamp()) * 1000 << 80)


def _grants(of: str, to: str) -> str:
    return f"""
        DO $$ DECLARE granted record; BEGIN
            FOR granted IN
                SELECT privilege_type, grantee::regrole AS role
                  FROM pg_class, aclexplode(relacl)
                 WHERE oid = '{of}'::regclass AND grantee NOT IN (0, relowner)
            LOOP
                EXECUTE format('GRANT %s ON {to} TO %s', granted.privilege_type, granted.role);
            END LOOP;
        END $$;
    """  # noqa: S608 (names of ours)


def _patiently(change: Callable[[], object]) -> None:
    Retrying(
        retry=retry_if_exception(_is_lock_timeout),
        wait=wait_random(*STEP_BACK_S),
        stop=stop_after_delay(PATIENCE_S),
        reraise=True,
    )(change)


def _is_lock_timeout(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.errors.LockNotAvailable)
