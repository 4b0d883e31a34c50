"""The trail of a violation: everything that is known about an event, to find out what happened to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from proof.chaos.found import Found
from proof.chaos.ledger import Attempt, Ledger

#: Log lines of one trail.
LINES = 10


def trail(item_id: str, ledger: Ledger, found: Found, state: Path | None = None) -> Iterator[str]:
    """Yield what the client, the database, the dead letters, and the outboxes and logs in the folder `state` say about
    an id.
    """
    yield from _client(item_id, ledger)
    for row in found.rows:
        if item_id in (row.event_id, row.playback_id):
            yield f"view_events: {row.event_id} {row.kind} {row.position_s} s, received {row.received_at.isoformat()}"
    for playback in found.playbacks:
        if playback.playback_id == item_id:
            yield f"playbacks: {playback.events} events, at {playback.position_s} s"
    tasks = {item_id}
    for letter in found.dead:
        if item_id and item_id in (letter.task_id, *letter.event_ids):
            yield f"views.dead: task {letter.task_id}, {len(letter.event_ids)} events"
            tasks.add(letter.task_id or item_id)
    if state is not None:
        yield from _outboxes(item_id, state / "outbox")
        yield from _logs(tasks, state / "log")


def _client(item_id: str, ledger: Ledger) -> Iterator[str]:
    sending = ledger.sent.get(item_id)
    if sending is not None:
        (event,) = (event for event in sending.events if event.event_id == item_id)
        yield f"client: {event.kind} by {event.viewer_id!r}, one of {len(sending.events)} sent together"
        yield from map(_attempt, sending.attempts)
    letter = ledger.deadly.get(item_id)
    if letter is not None:
        yield f"client: {letter.what}"
        yield from map(_attempt, letter.attempts)
    if sending is None and letter is None and item_id:
        yield "client: never sent an event of this id"
    viewer_id = event.viewer_id if sending else None
    if viewer_id in ledger.erased:
        erasure = ledger.erased[viewer_id]
        yield f"client: viewer erased between {erasure.began.isoformat()} and {erasure.ended or 'never'}"


def _attempt(attempt: Attempt) -> str:
    took_s = (attempt.ended - attempt.began).total_seconds()
    return f"client: sent {attempt.began.isoformat()}, after {took_s:.3f} s: {attempt.answer}"


def _outboxes(item_id: str, folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.sqlite")):
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
                found = connection.execute(
                    "SELECT number FROM requests WHERE instr(body, CAST(? AS BLOB))", (item_id,)
                ).fetchall()
        except sqlite3.Error:
            continue  # the file was just made or just removed
        yield from (f"outbox: request {number} of {path.name}" for (number,) in found)


def _logs(names: Iterable[str], folder: Path) -> Iterator[str]:
    wanted = tuple(name for name in names if name)
    found = 0
    for path in sorted(folder.glob("*.log*")):
        with path.open(errors="replace") as log:
            for line in log:
                if any(name in line for name in wanted):
                    yield f"{path.name}: {line.strip()}"
                    found += 1
                    if found == LINES:
                        return
