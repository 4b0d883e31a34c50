"""Before a message is tried alone, PostgreSQL is asked for an answer."""

from __future__ import annotations

from sqlalchemy import text

from safe_consumer.second_try import database_answers
from service.database import connect


def test_a_pooled_connection_that_was_lost_is_no_answer(url: str) -> None:
    engine, other = connect(url, pool_size=1), connect(url, pool_size=1)
    assert database_answers(engine)
    with other.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    assert not database_answers(engine)
    assert database_answers(engine)
    engine.dispose()
    other.dispose()
