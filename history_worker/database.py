"""The connection to PostgreSQL, and which of its errors are an outage."""

from __future__ import annotations

import psycopg
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError

#: A statement that takes longer is not slow, it is stuck: below the broker's heartbeat times two, so that a worker that
#: waits for the database is not taken for dead.
STATEMENT_TIMEOUT_MS = 15_000
CONNECT_TIMEOUT_S = 5
#: A worker that was frozen in the middle of a transaction keeps its locks, and an erase waits for them. For so long.
IDLE_IN_TRANSACTION_TIMEOUT_MS = 15_000

#: SQLSTATE classes that mean "not now" rather than "never": 08 connection, 25006 read only, 25P03 idle in transaction,
#: 40 deadlock or serialization, 53 resources, 55P03 lock, 57 operator intervention, 58 system error, XX internal error.
#: https://www.postgresql.org/docs/18/errcodes-appendix.html
OUTAGE_STATES = ("08", "25006", "25P03", "40", "53", "55P03", "57", "58", "XX")


def connect(url: str, *, pool_size: int) -> Engine:
    """An engine whose connections notice a database that went away and one that hangs. Opens none yet.

    Make it after the process has forked.
    """
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_pre_ping=False,  # a round trip a batch; the retry after a lost connection does the same job
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC"
            f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_MS}",
            "tcp_user_timeout": STATEMENT_TIMEOUT_MS,
            "application_name": "flixtrail",
        },
    )


def is_outage(error: BaseException) -> bool:
    """Whether the same statement may well succeed later: the database is away, restarting, full, or out of patience."""
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, psycopg.Error) and error.orig.sqlstate is not None:
        return error.orig.sqlstate.startswith(OUTAGE_STATES)
    # Without a state the server did not say it: refused, cut, timed out. (A client-side DataError has none either.)
    return error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError | psycopg.InterfaceError)
