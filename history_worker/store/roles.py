"""Makes the roles of the history database, and says what each may do.

    flixtrail_migrator   owns the tables and changes them: the migrations, once at a start; `flixtrail partitions make`
    flixtrail_writer     adds views and updates playbacks; deletes nothing: the history workers
    flixtrail_reader     reads views and playbacks: the history API
    flixtrail_eraser     reads and deletes a viewer's rows, and remembers the erase: `flixtrail erase`

Run `python -m history_worker.store.roles` as the database's administrator. It makes the roles and sets their passwords.
Run it again to change a password. Then the migrations grant the rights in GRANTS. If these roles do not exist (a demo,
a database of your own), everything runs as the user who connects.
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

from service import logs
from service.logs import LogSettings
from service.settings import DatabaseUrl, SettingsError, read

log = structlog.get_logger(__name__)

MIGRATOR, WRITER, READER, ERASER = "flixtrail_migrator", "flixtrail_writer", "flixtrail_reader", "flixtrail_eraser"

#: The rights of each role, by table. PostgreSQL denies everything else.
GRANTS: Mapping[str, Mapping[str, str]] = {
    WRITER: {
        "view_events": "SELECT, INSERT",  # SELECT: for RETURNING, and for the key that ON CONFLICT reads
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

#: Without a lock, two processes at once would make the same role. Any number that nothing else uses.
ROLES_LOCK = 5_672_5434
#: The password is sent in the form in which PostgreSQL stores it. PostgreSQL's log may contain statements, but then it
#: contains no password.
PASSWORD_ENCRYPTION = "scram-sha-256"  # noqa: S105 (the name of a method)

Password = Annotated[str, Field(min_length=1)]


class RolesSettings(LogSettings):
    """Settings of `python -m history_worker.store.roles`, read once at its start."""

    admin_database_url: DatabaseUrl
    #: The administrator's own password. An existing database keeps its first password until this changes it.
    postgres_password: Password
    postgres_migrator_password: Password
    postgres_writer_password: Password
    postgres_reader_password: Password
    postgres_eraser_password: Password


def create(settings: RolesSettings) -> None:
    """Make the roles, or change their passwords. Gives all existing tables to the migrator.

    Raises psycopg.Error; then nothing has changed.
    """
    passwords = {
        MIGRATOR: settings.postgres_migrator_password,
        WRITER: settings.postgres_writer_password,
        READER: settings.postgres_reader_password,
        ERASER: settings.postgres_eraser_password,
    }
    with psycopg.connect(settings.admin_database_url) as connection:
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
    """Let only these roles connect, and only the migrator create anything."""
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
    """Give the tables to the migrator.

    An administrator owns them in a restored database, or in one older than the roles.
    """
    others = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tableowner <> %s"
    for (table,) in connection.execute(others, [MIGRATOR]).fetchall():
        statement = sql.SQL("ALTER TABLE public.{} OWNER TO {}")
        connection.execute(statement.format(sql.Identifier(table), sql.Identifier(MIGRATOR)))


def grant(connection: Connection) -> None:
    """Grant the existing roles the rights in GRANTS, and no others."""
    known = set(connection.execute(text("SELECT rolname FROM pg_roles")).scalars())
    for role, tables in GRANTS.items():
        if role in known:
            connection.execute(text(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}"))
            for table, rights in tables.items():
                connection.execute(text(f"GRANT {rights} ON {table} TO {role}"))


def main() -> None:
    """Run the command. Exit status 1: the database is away or refuses. 2: a setting is wrong."""
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
