"""What holds whatever is broken: views are accepted in time, videos play, and in the end each view is stored once."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Any

import psycopg

from tests.client import Client
from tests.conftest import Demo
from tests.waiting import until

#: A request's deadline (deadlines.DEADLINE_S) and room for a busy machine. One that waited for a confirm, or for a
#: connection, would take two seconds (confirming_connection.TIMEOUT_S).
ANSWERED_S = 0.25 + 1


def accepted(client: Client, view: dict[str, Any]) -> str:
    """The view is accepted, in time; its id."""
    started = monotonic()
    answer = client.post("/api/views", json=view)
    assert monotonic() - started < ANSWERED_S
    assert answer.status == 202, answer.data
    assert client.get("/readyz").status == 200
    return str(view["event_id"])


def streams_and_lives(client: Client) -> None:
    nobody = Client(client.url)  # a stream with a token would be a view as well
    for path, headers in (("/videos/clip-1/stream", {"Range": "bytes=0-99999"}), ("/healthz", {}), ("/api/videos", {})):
        started = monotonic()
        assert nobody.get(path, headers=headers).status in {200, 206}
        assert monotonic() - started < ANSWERED_S


def stored_once(demo: Demo, viewer_id: str, ids: Iterable[str]) -> None:
    """Everything that was accepted arrives, from the outbox by way of the broker, and each view counts once."""
    demo.settled()
    expected = sorted(ids)
    with psycopg.connect(demo.status()["database"]["url"], autocommit=True) as connection:

        def stored() -> list[str]:
            query = "SELECT event_id::text FROM view_events WHERE viewer_id = %s"
            return sorted(row[0] for row in connection.execute(query, [viewer_id]).fetchall())

        # RabbitMQ's figures may be a second old: what it does not show any more may just be written.
        until(lambda: set(expected) <= set(stored()), what="every accepted view in the database")
        assert stored() == expected
        counted = connection.execute("SELECT sum(events) FROM playbacks WHERE viewer_id = %s", [viewer_id]).fetchone()
    assert counted == (len(expected),)
