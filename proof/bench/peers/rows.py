"""Inserts into the same columns, over an open connection: one per thread, so one per prefork process."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg

INSERT = """
INSERT INTO view_events
       (event_id, viewer_id, video_id, playback_id, kind, position_s, played_from_s, at, received_at)
VALUES (%(event_id)s, %(viewer_id)s, %(video_id)s, %(playback_id)s, %(kind)s, %(position_s)s, %(played_from_s)s, %(at)s,
        %(received_at)s)
    ON CONFLICT DO NOTHING
"""

_local = threading.local()


def insert(view: Mapping[str, Any]) -> None:
    """Insert one row in one commit."""
    connection = _connection()
    connection.execute(INSERT, {"played_from_s": None, **view})
    connection.commit()


def insert_many(views: Sequence[Mapping[str, Any]]) -> None:
    """Insert many rows in one commit. psycopg sends them in pipeline mode."""
    connection = _connection()
    with connection.cursor() as cursor:
        cursor.executemany(INSERT, [{"played_from_s": None, **view} for view in views])
    connection.commit()


def _connection() -> psycopg.Connection[Any]:
    if not hasattr(_local, "connection"):
        _local.connection = psycopg.connect(os.environ["DATABASE_URL"])
    return _local.connection  # type: ignore[no-any-return]
