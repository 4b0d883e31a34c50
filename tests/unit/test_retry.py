"""Retries a write while PostgreSQL is away: logged once, and ended when the worker is asked to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic

import psycopg
import pytest
from celery.exceptions import Reject
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InternalError, OperationalError, ProgrammingError
from structlog.testing import capture_logs

from safe_consumer import retry, shutdown
from safe_consumer.retry import OutageLog, is_overdue, until_committed
from service import metrics
from service.database import TookTooLong


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has seen nothing yet, of a worker that nobody has asked to stop."""
    monkeypatch.setattr(retry, "OUTAGE_LOG", OutageLog())
    yield
    shutdown._asked_at.value = 0.0  # noqa: SLF001 (nobody else takes a stop back)


def outage() -> OperationalError:
    return OperationalError("INSERT", {}, psycopg.OperationalError("connection refused\nIs the server running?"))


def away(times: int) -> Callable[[], int]:
    """Writes one row, after it has failed so often."""
    return failing(*[outage()] * times)


def failing(*errors: Exception) -> Callable[[], int]:
    """Writes one row, after it has failed with each of these."""
    left = iter(errors)

    def write() -> int:
        if error := next(left, None):
            raise error
        return 1

    return write


def test_it_tries_until_postgresql_is_back_and_logs_each_change_once() -> None:
    with capture_logs() as logs:
        assert [until_committed(away(times)) for times in (3, 0, 2)] == [1, 1, 1]
    assert [line["event"] for line in logs] == [
        "PostgreSQL is away; the message stays unacknowledged",
        "PostgreSQL is back",
    ] * 2
    assert logs[0]["reason"] == "(psycopg.OperationalError) connection refused"


@pytest.mark.parametrize(
    "error",
    [
        ProgrammingError("INSERT", {}, psycopg.errors.UndefinedTable("no table")),
        ProgrammingError("INSERT", {}, psycopg.errors.InsufficientPrivilege("no grant")),
        ProgrammingError("INSERT", {}, psycopg.errors.DuplicatePreparedStatement("pgbouncer")),
        OperationalError("INSERT", {}, psycopg.errors.InvalidSqlStatementName("pgbouncer")),
        InternalError("INSERT", {}, psycopg.errors.InFailedSqlTransaction("what nobody foresaw")),
        DBAPIError("INSERT", {}, psycopg.ProgrammingError("said by the client")),
    ],
)
def test_what_is_no_fault_of_the_events_is_held_and_named(error: DBAPIError) -> None:
    with capture_logs() as logs:
        assert until_committed(failing(error, error)) == 1
    assert [line["event"] for line in logs] == [
        "PostgreSQL cannot take it; the message stays unacknowledged",
        "PostgreSQL is back",
    ]
    assert (logs[0]["log_level"], logs[0]["sqlstate"]) == ("error", getattr(error.orig, "sqlstate", None))


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (TookTooLong(8), "a statement took too long"),
        (
            OperationalError("INSERT", {}, psycopg.errors.QueryCanceled("user request")),
            "somebody cancelled a statement",
        ),
        (OperationalError("INSERT", {}, psycopg.errors.LockNotAvailable("timeout")), "waited too long for a lock"),
        (OperationalError("INSERT", {}, psycopg.errors.DeadlockDetected("deadlock")), "a deadlock"),
        (
            OperationalError("INSERT", {}, psycopg.errors.SerializationFailure("concurrent")),
            "another transaction was in the way",
        ),
    ],
)
def test_what_is_in_the_way_is_named_and_is_no_outage(error: Exception, name: str) -> None:
    figures = metrics.worker()
    figures.database_up.set(1)
    before = {label: figures.in_the_way.labels(label)._value.get() for label in metrics.IN_THE_WAY}  # noqa: SLF001
    with capture_logs() as logs:
        assert until_committed(failing(error, error)) == 1
    assert [line["event"] for line in logs] == [
        f"{name}; the message stays unacknowledged",
        "nothing is in the way any more",
    ]
    after = {label: figures.in_the_way.labels(label)._value.get() for label in metrics.IN_THE_WAY}  # noqa: SLF001
    assert sum(after.values()) - sum(before.values()) == 2
    assert figures.database_up._value.get() == 1  # noqa: SLF001


@pytest.mark.parametrize(
    ("orig", "name"),
    [
        (psycopg.errors.DiskFull("no space"), "PostgreSQL has no room on its disk"),
        (psycopg.errors.TooManyConnections("sorry"), "PostgreSQL has no connection left"),
        (psycopg.errors.AdminShutdown("stop"), "PostgreSQL is away"),
    ],
)
def test_what_postgresql_lacks_is_named(orig: psycopg.Error, name: str) -> None:
    with capture_logs() as logs:
        assert until_committed(failing(OperationalError("INSERT", {}, orig))) == 1
    assert [line["event"] for line in logs] == [f"{name}; the message stays unacknowledged", "PostgreSQL is back"]


def test_what_is_to_blame_itself_is_not_held() -> None:
    with pytest.raises(TookTooLong):
        until_committed(failing(outage(), TookTooLong(8)), lambda error: isinstance(error, TookTooLong))


def test_an_outage_that_turns_into_something_else_is_named_anew() -> None:
    missing = ProgrammingError("INSERT", {}, psycopg.errors.UndefinedTable("no table"))
    with capture_logs() as logs:
        assert until_committed(failing(outage(), missing, outage(), missing)) == 1
    assert [line["event"] for line in logs] == [
        "PostgreSQL is away; the message stays unacknowledged",
        "PostgreSQL cannot take it; the message stays unacknowledged",
        "PostgreSQL is back",
    ]


@pytest.mark.parametrize(
    "error",
    [
        IntegrityError("INSERT", {}, psycopg.errors.NotNullViolation("no")),
        DataError("INSERT", {}, psycopg.DataError("the client does not even send it")),
        OperationalError("INSERT", {}, psycopg.errors.ProgramLimitExceeded("too big")),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        RuntimeError("a bug"),
    ],
)
def test_a_refusal_is_raised_at_once_and_shows_that_postgresql_is_back(error: Exception) -> None:
    with capture_logs() as logs, pytest.raises(type(error)):
        until_committed(failing(outage(), error))
    assert [line["event"] for line in logs][1:] == ["PostgreSQL is back"]


def test_a_worker_that_stops_gives_the_message_back_at_once() -> None:
    shutdown.ask()
    started = monotonic()
    with pytest.raises(Reject) as given_back:
        until_committed(away(1_000_000))
    assert given_back.value.requeue
    assert monotonic() - started < 1


def test_a_worker_that_stops_still_writes_what_postgresql_takes() -> None:
    shutdown.ask()
    assert until_committed(away(0)) == 1


def test_a_statement_is_given_up_when_both_it_and_the_stop_have_waited() -> None:
    assert not is_overdue(60)
    shutdown.ask()
    assert not is_overdue(60)  # asked just now
    shutdown._asked_at.value -= 10  # noqa: SLF001
    assert not is_overdue(0.5)  # begun just now
    assert is_overdue(1.5)
