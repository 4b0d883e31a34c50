"""The connection to PostgreSQL, and which of its errors are an outage, and which are about the values."""

from __future__ import annotations

from collections.abc import Callable, Generator
from time import monotonic
from typing import Any

import psycopg
from psycopg.waiting import Ready
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

# Everything below is shorter than the broker's heartbeat (10 s), and PostgreSQL's return is noticed within 5 s.

#: A statement that takes longer is not slow, it is stuck. The server ends it, and the connection stays good.
STATEMENT_TIMEOUT_MS = 8_000
#: Longer than the above: past this the server itself is stuck (frozen, or swallowed by the network). A frozen server
#: ends no statement, and its kernel goes on to acknowledge what is sent to it, so that TCP sees nothing either.
ANSWER_S = 9
#: The shortest that libpq takes.
CONNECT_TIMEOUT_S = 2
#: What is sent and not acknowledged for so long has met a dead host; so has a connection on which nothing is heard for
#: so long. Otherwise a server that came back would be waited for on its old connection.
TCP_USER_TIMEOUT_MS = 4_000
KEEPALIVE_S = 2
#: A worker that was frozen in the middle of a transaction keeps its locks, and an erase waits for them. For so long.
IDLE_IN_TRANSACTION_TIMEOUT_MS = 15_000

#: SQLSTATE classes that mean "not now" rather than "never": 08 connection, 25006 read only, 25P03 idle in transaction,
#: 40 deadlock or serialization, 53 resources, 55P03 lock, 57 operator intervention, 58 system error, XX internal error.
#: https://www.postgresql.org/docs/18/errcodes-appendix.html
OUTAGE_STATES = ("08", "25006", "25P03", "40", "53", "55P03", "57", "58", "XX")

#: SQLSTATE classes that are about the values, not about the database: 22 data, 23 integrity, 54 too big or too complex.
REFUSING_STATES = ("22", "23", "54")


class ImpatientConnection(psycopg.Connection[Any]):
    """A connection that does not wait for a server that has stopped answering.

    psycopg's waiting looks up ten times a second. Past `answer_s`, or when `hurry` says so, the connection is closed
    and psycopg.OperationalError raised, as when the server had closed it.
    """

    #: None: it waits as long as the server's host is there.
    answer_s: float | None = ANSWER_S
    #: Asked with the seconds that an answer has been waited for.
    hurry: Callable[[float], bool] = staticmethod(lambda _waited_s: False)

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
        """What psycopg does for every exchange with the server."""
        return super().wait(self._impatiently(gen), *args, **options)

    def _impatiently(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        began = monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                waited_s = monotonic() - began
                too_long = self.answer_s is not None and waited_s > self.answer_s
                if ready == Ready.NONE and (too_long or self.hurry(waited_s)):
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"no answer within {waited_s:.1f} s")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value


def connect(
    url: str,
    *,
    pool_size: int,
    pre_ping: bool = False,
    answer_s: float | None = ANSWER_S,
    hurry: Callable[[float], bool] | None = None,
) -> Engine:
    """An engine whose connections notice a database that went away and one that hangs. Opens none yet.

    Make it after the process has forked. `pre_ping` asks a pooled connection whether it lives before it is used: a
    round trip, for those who do not try again. `answer_s` and `hurry`: see ImpatientConnection. With None for
    `answer_s` a host that went away is still noticed (keepalives), a server that hangs is not.
    """
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        hide_parameters=True,  # what is logged of an error names no viewer
        pool_pre_ping=pre_ping,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS} -c timezone=UTC"
            f" -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_MS}",
            "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
            "keepalives_idle": KEEPALIVE_S,
            "keepalives_interval": KEEPALIVE_S,
            "application_name": "flixtrail",
        },
    )

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, args: Any, options: Any) -> ImpatientConnection:
        connection = ImpatientConnection.connect(*args, **options)
        connection.answer_s = answer_s
        if hurry is not None:
            connection.hurry = hurry
        return connection

    return engine


def is_outage(error: BaseException) -> bool:
    """Whether the same statement may well succeed later: the database is away, restarting, full, or out of patience."""
    if not isinstance(error, DBAPIError):
        return False
    state = sqlstate(error)
    if state is not None:
        return state.startswith(OUTAGE_STATES)
    # Without a state the server did not say it: refused, cut, timed out. (A client-side DataError has none either.)
    return error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError | psycopg.InterfaceError)


def is_refusal(error: BaseException) -> bool:
    """Whether the values of a batch are to blame. A table that is missing or a wrong password are not about them."""
    if isinstance(error, UnicodeEncodeError):
        return True  # half of a surrogate pair: JSON may carry it, UTF-8 may not
    state = sqlstate(error)
    if state is not None:
        return state.startswith(REFUSING_STATES)
    return isinstance(error, DataError | IntegrityError)  # the client said it, before it sent anything


def sqlstate(error: BaseException | None) -> str | None:
    """What the server called it. None: it is no error of the database, or the client said it and not the server."""
    return error.orig.sqlstate if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.Error) else None
