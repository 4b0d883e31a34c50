"""The worker, inserting whatever comes, into a table without its primary key."""

from sqlalchemy import text

from history_worker.app import app
from history_worker.store import writer

__all__ = ["app"]

STATEMENT, CLAUSE = str(writer.WRITE), "ON CONFLICT (event_id) DO NOTHING"
assert STATEMENT.count(CLAUSE) == 1
writer.WRITE = text(STATEMENT.replace(CLAUSE, ""))
