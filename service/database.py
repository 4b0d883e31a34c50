"""Connects to PostgreSQL, and distinguishes its errors: an outage, or values that it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from time import monotonic
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.waiting import Ready
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from service import addresses

# All times below, except the last, are shorter than the broker's heartbeat (10 s). Workers notice within 5 s that
# PostgreSQL is back.

#: A statement that takes longer is stuck. The server ends it, and the connection stays usable.
STATEMENT_TIMEOUT_MS = 8_000
#: The part of STATEMENT_TIMEOUT_MS that a statement may wait for one lock (a locked table, a row, an erase). It is
#: shorter on purpose: a wait for another transaction ends as 55P03, so 57014 means that the statement itself is slow.
LOCK_TIMEOUT_SHARE = 5 / 8
#: Seconds to wait for an answer. Longer than the timeouts above: if this passes, the server itself is stuck (frozen, or
#: cut off by the network). A frozen server ends no statement. Its kernel goes on to acknowledge what it receives, so
#: TCP does not notice either.
ANSWER_TIMEOUT_S = 9
#: The shortest that libpq accepts.
CONNECT_TIMEOUT_S = 2
#: A host is dead if it does not acknowledge sent data for so long, or if nothing is heard on its connection for so
#: long. Without this, a worker waits on its old connection for a server that has come back.
TCP_USER_TIMEOUT_MS = 4_000
KEEPALIVE_S = 2
#: A worker that freezes in the middle of a transaction keeps its locks, and an erase waits for them. PostgreSQL ends
#: the transaction after this time.
IDLE_IN_TRANSACTION_TIMEOUT_MS = 15_000

#: SQLSTATE classes that mean "not now" rather than "never": 08 connection, 25006 read only, 25P03 idle in transaction,
#: 40 deadlock or serialization, 53 resources, 55P03 lock, 57 operator intervention, 58 system error, XX internal error.
#: https://www.postgresql.org/docs/18/errcodes-appendix.html
OUTAGE_SQLSTATES = ("08", "25006", "25P03", "40", "53", "55P03", "57", "58", "XX")

#: The SQLSTATE of a statement that the server ended: it ran into its timeout, or somebody cancelled it.
QUERY_CANCELED = "57014"
#: The SQLSTATE of a statement that waited too long for a lock.
LOCK_NOT_AVAILABLE = "55P03"

#: SQLSTATE classes that are about the values: 22 data, 23 integrity, 54 too big or too complex.
REFUSAL_SQLSTATES = ("22", "23", "54")


#: For statements that may take any time, and for an administrator who waits for them.
NO_TIMEOUTS = {"statement_timeout": "0", "timezone": "UTC", "idle_in_transaction_session_timeout": "0"}


class TookTooLong(Exception):
    """PostgreSQL ended a statement at its timeout. It was not cancelled."""

    def __init__(self, took_s: float) -> None:
        super().__init__(f"a statement took longer than {took_s:g} s")


class DeadlineConnection(psycopg.Connection[Any]):
    """A connection that gives up on a server that does not answer.

    While psycopg waits, it wakes up ten times a second. After `answer_timeout_s`, or if `give_up` returns True, this
    closes the connection and raises psycopg.OperationalError, as if the server had closed it.
    """

    #: Seconds. None: wait as long as the server's host is reachable.
    answer_timeout_s: float | None = ANSWER_TIMEOUT_S
    #: Called with the seconds that have passed without an answer. True: give up.
    give_up: Callable[[float], bool] = staticmethod(lambda _waited_s: False)

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
        """Wait for the server. psycopg calls this for every exchange with it."""
        return super().wait(self._with_deadline(gen), *args, **options)

    def _with_deadline(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        began = monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                waited_s = monotonic() - began
                too_long = self.answer_timeout_s is not None and waited_s > self.answer_timeout_s
                if ready == Ready.NONE and (too_long or self.give_up(waited_s)):
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
    answer_timeout_s: float | None = ANSWER_TIMEOUT_S,
    give_up: Callable[[float], bool] | None = None,
    timeouts: Mapping[str, str] | None = None,
) -> Engine:
    """Return an engine whose connections notice a database that went away and one that hangs. Opens no connection yet.

    Call it after the process has forked. `pre_ping` tests a pooled connection before each use. It costs a round trip;
    use it if the caller does not retry. For `answer_timeout_s` and `give_up` see DeadlineConnection. With
    `answer_timeout_s=None`, keepalives still notice a host that went away, but nothing notices a server that hangs.

    `url` may have `options` of its own (a search_path); the timeouts here are added to them. A pooler in transaction
    mode (PgBouncer) gives each transaction another session. Then every transaction sets all of them, and nothing is
    prepared (docs/decisions/0017-addresses-and-passwords.md).
    """
    complete = addresses.database_url(url)
    given = conninfo_to_dict(complete)
    if timeouts is None:
        timeouts = {
            "statement_timeout": str(STATEMENT_TIMEOUT_MS),
            "lock_timeout": str(lock_timeout_ms()),
            "timezone": "UTC",
            "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
        }
    sessions = Sessions(complete, {**addresses.settings_in(str(given.get("options", ""))), **timeouts})
    engine = create_engine(
        _for_sqlalchemy(given),
        pool_size=pool_size,
        max_overflow=0,
        hide_parameters=True,  # a logged error then names no viewer
        pool_pre_ping=pre_ping,
    )

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, _args: Any, options: Any) -> DeadlineConnection:
        connection = sessions.open(context=options.get("context"))
        connection.answer_timeout_s = answer_timeout_s
        if give_up is not None:
            connection.give_up = give_up
        return connection

    @event.listens_for(engine, "begin")
    def _begin(transaction: Connection) -> None:
        if sessions.pooled:
            transaction.exec_driver_sql(*sessions.for_this_transaction())

    return engine


def lock_timeout_ms() -> int:
    """Return how long a statement may wait for one lock."""
    return int(STATEMENT_TIMEOUT_MS * LOCK_TIMEOUT_SHARE)


def _for_sqlalchemy(given: Mapping[str, Any]) -> URL:
    """Return the address that SQLAlchemy shows. libpq reads the whole address, which may have several hosts."""
    host, port = (str(given.get(name) or "").partition(",")[0] for name in ("host", "port"))
    socket = host.startswith("/")
    return URL.create(
        "postgresql+psycopg",
        given.get("user"),
        given.get("password"),
        host=None if socket or not host else host,
        port=int(port) if port else None,
        database=given.get("dbname"),
        query={"host": host} if socket else {},
    )


class Sessions:
    """Opens sessions with these settings, also through a pooler that changes the session with each transaction."""

    def __init__(self, url: str, settings: Mapping[str, str]) -> None:
        self._url = url
        self._settings = dict(settings)
        #: Whether each transaction must set the settings. Checked at each connect, because an address may change.
        self.pooled = False

    def open(self, **options: Any) -> DeadlineConnection:
        """Open a new connection. Raises psycopg.OperationalError."""
        try:
            connection = self._open(**options)
        except psycopg.OperationalError as error:
            # PgBouncer refuses `options`, unless it is configured to ignore them. Each connect tries with them first:
            # the pooler may have been replaced.
            if "unsupported startup parameter" not in str(error):
                raise
            connection = self._open(takes_options=False, **options)
        # A pooler reports a process number of its own, not that of the server process.
        connection.autocommit = True
        (serving,) = connection.execute("SELECT pg_backend_pid()", prepare=False).fetchone() or (0,)
        connection.autocommit = False
        self.pooled = serving != connection.info.backend_pid
        if self.pooled:
            connection.prepare_threshold = None  # the next transaction may run in a session that prepared nothing
        return connection

    def _open(self, *, takes_options: bool = True, **options: Any) -> DeadlineConnection:
        given = conninfo_to_dict(self._url)
        return DeadlineConnection.connect(
            self._url,
            **{
                "connect_timeout": given.get("connect_timeout", CONNECT_TIMEOUT_S),
                "options": " ".join(map(_option, self._settings.items())) if takes_options else "",
                "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
                "keepalives_idle": KEEPALIVE_S,
                "keepalives_interval": KEEPALIVE_S,
                "application_name": given.get("application_name", "flixtrail"),
                **options,
            },
        )

    def for_this_transaction(self) -> tuple[str, tuple[str, ...]]:
        """Return the statement that sets the settings, and its values."""
        calls = ", ".join("set_config(%s, %s, true)" for _ in self._settings)
        return f"SELECT {calls}", tuple(word for setting in self._settings.items() for word in setting)


def _option(setting: tuple[str, str]) -> str:
    name, value = setting
    return f"-c {name}=" + re.sub(r"([\\\s])", r"\\\1", value)


def is_outage(error: BaseException) -> bool:
    """Return whether the same statement may succeed later: PostgreSQL is away, restarting, full, or waited too long."""
    if not isinstance(error, DBAPIError):
        return False
    state = sqlstate(error)
    if state is not None:
        return state.startswith(OUTAGE_SQLSTATES)
    # Without a SQLSTATE the error is not from the server: connection refused, cut or timed out. (A client-side
    # DataError has none either.)
    return error.connection_invalidated or isinstance(error.orig, psycopg.OperationalError | psycopg.InterfaceError)


def is_refusal(error: BaseException) -> bool:
    """Return whether the values of a batch are to blame. A missing table or a wrong password is not about them."""
    if isinstance(error, UnicodeEncodeError):
        return True  # half of a surrogate pair: JSON can carry it, UTF-8 cannot
    state = sqlstate(error)
    if state is not None:
        return state.startswith(REFUSAL_SQLSTATES)
    return isinstance(error, DataError | IntegrityError)  # the client library refused it before it sent anything


def sqlstate(error: BaseException | None) -> str | None:
    """Return the server's code of an error. None: not an error of the database, or one of the client library."""
    return error.orig.sqlstate if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.Error) else None
