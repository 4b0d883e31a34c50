"""The history API: what it says at its start."""

from __future__ import annotations

from structlog.testing import capture_logs

from history_worker import api
from service.database import connect
from tests.demo import free_port


def test_a_database_that_does_not_let_it_in_is_told_at_the_start() -> None:
    with capture_logs() as logs:
        api.say_what_is_wrong(connect(f"postgresql+psycopg://a:my-secret@127.0.0.1:{free_port()}/x", pool_size=1))
    (line,) = logs
    assert "Connection refused" in line["reason"]
    assert "my-secret" not in str(line)
