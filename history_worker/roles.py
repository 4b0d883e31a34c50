"""Who may do what in the history database: one PostgreSQL role for each who connects, with the rights that it needs.

    flixtrail_migrator   owns the tables and changes them: the migrations, once at a start; `flixtrail partitions make`
    flixtrail_writer     adds views and updates playbacks; deletes nothing: the history workers
    flixtrail_reader     reads views and playbacks: the history API
    flixtrail_eraser     reads and deletes a viewer's rows, and remembers the erase: `flixtrail erase`

`python -m history_worker.roles`, run as the database's administrator, makes them and sets their passwords. It may be
run any number of times, and is how a password is changed. The migrations then grant what stands in GRANTS. Where there
are no such roles (a demo, somebody's own database) everything runs as whoever connects.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated

import psycopg
import structlog
from psycopg import sql
from pydantic import Field
from sqlalchemy import Connection, text

from view_events import logs
from view_events.logs import LogSettings
from view_events.settings import DatabaseUrl, SettingsError, read

log = structlog.get_logger(__name__)

MIGRATOR, WRITER, READER, ERASER = "flixtrail_migrator", "flixtrail_writer", "flixtrail_reader", "flixtrail_eraser"

#: What each may do with each table. What is not here is refused by PostgreSQL.
GRANTS: Mapping[str, Mapping[str, str]] = {
    WRITER: {
        "view_events": "SELECT, INSERT",  # SELECT: RETURNING, and the key that ON CONFLICT looks at
        "playbacks": "SELECT, INSERT, UPDATE",
        "erasures": "SELECT",
        "erased_events": "SELECT, INSERT",
    },
    READER: {
        "view_events": "SELECT",
        "playbacks": "SELECT",
    },
    ERASER: {
        "view_events": "SELECT, DELETE",
        "playbacks": "SELECT, DELETE",
        "erasures": "SELECT, INSERT, UPDATE",
        "erased_events": "SELECT, INSERT",
    },
}

#: Two that run at once would make the same role. Any number that nobody else takes.
ROLES_LOCK = 5_672_5434
#: PostgreSQL keeps a password as this, and so it is sent: its log may hold statements, and then holds no password.
PASSWORD_ENCRYPTION = "scram-sha-256"  # noqa: S105 (the name of a method)

Password = Annotated[str, Field(min_length=8)]


class RolesSettings(LogSettings):
    """Read once, at the start of `python -m history_worker.roles`."""

    admin_database_url: DatabaseUrl
    #: The administrator's own: a database that exists already keeps the one it was made with until it is told.
    postgres_password: Password
    postgres_migrator_password: Password
    postgres_writer_password: Password
    postgres_reader_password: Password
    postgres_eraser_password: Password


def create(settings: RolesSettings) -> None:
    """Make the roles, or change their passwords; the tables that there are become the migrator's.

    Raises psycopg.Error; then nothing is changed.
    """
    passwords = {
        MIGRATOR: settings.postgres_migrator_password,
        WRITER: settings.postgres_writer_password,
        READER: settings.postgres_reader_password,
        ERASER: settings.postgres_eraser_password,
    }
    url = settings.admin_database_url.replace("postgresql+psycopg://", "postgresql://", 1)
    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [ROLES_LOCK])
        known = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
        for role in passwords.keys() - known:
            connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
        for role, password in passwords.items():
            attributes = sql.SQL("LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS")
            _alter(connection, role, password, attributes)
        _alter(connection, connection.info.user, settings.postgres_password, sql.SQL(""))
        _only_for(connection, tuple(passwords))
        _hand_over(connection)
    log.info("roles made", roles=sorted(passwords))


def _alter(connection: psycopg.Connection, role: str, password: str, attributes: sql.SQL) -> None:
    encrypted = connection.pgconn.encrypt_password(password.encode(), role.encode(), PASSWORD_ENCRYPTION.encode())
    statement = sql.SQL("ALTER ROLE {} {} PASSWORD {}")
    connection.execute(statement.format(sql.Identifier(role), attributes, sql.Literal(encrypted.decode())))


def _only_for(connection: psycopg.Connection, roles: tuple[str, ...]) -> None:
    """Let nobody else in, and nobody but the migrator make anything."""
    database = sql.Identifier(connection.info.dbname)
    names = sql.SQL(", ").join(map(sql.Identifier, roles))
    migrator = sql.Identifier(MIGRATOR)
    for statement in (
        sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database),
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, names),
        sql.SQL("REVOKE ALL ON SCHEMA public FROM PUBLIC"),
        sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(names),
        sql.SQL("GRANT CREATE ON SCHEMA public TO {}").format(migrator),
    ):
        connection.execute(statement)


def _hand_over(connection: psycopg.Connection) -> None:
    """A database from before there were roles, or one that was restored, belongs to its administrator."""
    others = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tableowner <> %s"
    for (table,) in connection.execute(others, [MIGRATOR]).fetchall():
        statement = sql.SQL("ALTER TABLE public.{} OWNER TO {}")
        connection.execute(statement.format(sql.Identifier(table), sql.Identifier(MIGRATOR)))


def grant(connection: Connection) -> None:
    """Give the roles that there are what stands in GRANTS, and nothing else."""
    known = set(connection.execute(text("SELECT rolname FROM pg_roles")).scalars())
    for role, tables in GRANTS.items():
        if role in known:
            connection.execute(text(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}"))
            for table, rights in tables.items():
                connection.execute(text(f"GRANT {rights} ON {table} TO {role}"))


def main() -> None:
    """Exit status 1: the database is away or refuses; 2: a setting is wrong."""
    try:
        settings = read(RolesSettings)
    except SettingsError as error:
        sys.stderr.write(f"roles: {error}\n")
        sys.exit(2)
    logs.configure(settings)
    try:
        create(settings)
    except psycopg.Error as error:
        sys.exit(f"roles: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()
