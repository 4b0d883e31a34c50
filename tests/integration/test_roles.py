"""PostgreSQL roles: each service does its work with its own, and is refused what lies beside it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import ProgrammingError

from history_worker.store.erasure import erase
from history_worker.store.migrations.__main__ import upgrade
from history_worker.store.queries import history, receipts
from history_worker.store.roles import ERASER, GRANTS, MIGRATOR, READER, WRITER, RolesSettings, create
from history_worker.store.writer import write
from service.database import connect
from tests.fakes import an_event
from tests.integration.database import a_database

TABLES = ("view_events", "playbacks", "erasures", "erased_events", "alembic_version")
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


def settings(url: str, password: str = "a-password") -> RolesSettings:
    return RolesSettings(
        admin_database_url=url,
        postgres_password=password,
        postgres_migrator_password=password,
        postgres_writer_password=password,
        postgres_reader_password=password,
        postgres_eraser_password=password,
    )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A database that was there before there were roles, as after an upgrade."""
    with a_database() as url:
        create(settings(plain(url)))
        upgrade(as_role(url, MIGRATOR))
        yield url


def plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def as_role(url: str, role: str) -> str:
    return make_url(url).set(username=role).render_as_string(hide_password=False)


@pytest.mark.parametrize("role", [WRITER, READER, ERASER])
def test_a_role_has_what_is_granted_and_nothing_beside_it(url: str, role: str) -> None:
    with psycopg.connect(plain(as_role(url, role))) as connection:
        for table, privilege in product(TABLES, PRIVILEGES):
            row = connection.execute("SELECT has_table_privilege(%s, %s)", [table, privilege]).fetchone()
            granted = privilege in GRANTS[role].get(table, "").split(", ")
            assert row == (granted,), (table, privilege)


def test_each_service_does_its_work_with_its_role(url: str) -> None:
    event = an_event()
    writer, reader, eraser = (connect(as_role(url, role), pool_size=1) for role in (WRITER, READER, ERASER))
    try:
        assert write(writer, [event]) == 1
        assert write(writer, [event]) == 0
        assert len(history(reader, event.viewer_id)["items"]) == 1
        assert receipts(reader, [event.event_id])["stored"] == 1
        assert erase(eraser, event.viewer_id).events == 1
        assert write(writer, [event]) == 0  # it looks for who was erased, and remembers what it dropped
        assert history(reader, event.viewer_id)["items"] == []
    finally:
        for engine in (writer, reader, eraser):
            engine.dispose()


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (WRITER, "DELETE FROM view_events"),
        (WRITER, "UPDATE view_events SET position_s = 0"),
        (WRITER, "TRUNCATE playbacks"),
        (WRITER, "INSERT INTO erasures VALUES ('x', now())"),
        (WRITER, "CREATE TABLE mine (x int)"),
        (WRITER, "CREATE TEMPORARY TABLE mine (x int)"),
        (WRITER, "DROP TABLE view_events"),
        (WRITER, "CREATE ROLE other"),
        (READER, "INSERT INTO erased_events VALUES (gen_random_uuid())"),
        (READER, "DELETE FROM playbacks"),
        (READER, "SELECT * FROM erasures"),
        (ERASER, "UPDATE playbacks SET events = 0"),
        (ERASER, "ALTER TABLE view_events ADD COLUMN x int"),
        (MIGRATOR, "CREATE ROLE other"),
        (MIGRATOR, "CREATE DATABASE other"),
        (MIGRATOR, "COPY view_events TO PROGRAM 'true'"),
    ],
)
def test_what_lies_beside_is_refused(url: str, role: str, statement: str) -> None:
    with (
        psycopg.connect(plain(as_role(url, role)), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


def test_somebody_who_is_no_service_is_not_let_in(url: str) -> None:
    stranger = f"stranger_{uuid4().hex}"
    with psycopg.connect(plain(url), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {stranger} LOGIN")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(plain(as_role(url, stranger)))


def test_the_tables_that_were_there_before_belong_to_the_migrator(url: str) -> None:
    with psycopg.connect(plain(url)) as connection:
        owners = connection.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert owners == [(MIGRATOR,)]


def test_doing_it_again_changes_passwords_and_takes_back_what_somebody_granted_by_hand(url: str) -> None:
    hashes = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname LIKE 'flixtrail%' ORDER BY 1"
    with psycopg.connect(plain(url), autocommit=True) as admin:
        before = admin.execute(hashes).fetchall()
        admin.execute(f"GRANT DELETE ON view_events TO {READER}")
        create(settings(plain(url), "another-password"))
        upgrade(as_role(url, MIGRATOR))
        after = admin.execute(hashes).fetchall()
    assert len(after) == 4
    assert all(old[1] != new[1] for old, new in zip(before, after, strict=True))
    assert all(password.startswith("SCRAM-SHA-256$") for _, password in after)
    reader = connect(as_role(url, READER), pool_size=1)
    with pytest.raises(ProgrammingError, match="permission denied"), reader.begin() as transaction:
        transaction.execute(text("DELETE FROM view_events"))
    reader.dispose()
