"""Erases a viewer: deletes the stored rows, and makes workers drop the views that arrive later.

Use `flixtrail erase` on a terminal, or `python -m history_worker.store.erasure VIEWER` where only the services are
installed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from history_worker.settings import DatabaseSettings
from history_worker.store.writer import ERASURE_LOCK
from service.database import connect
from service.settings import SettingsError, read
from view_events.event import is_viewer

#: Writers that begin while an erase waits for the lock have to wait behind it. So the erase waits only for a moment.
#: Then it pauses, so that writers can pass, and tries again.
LOCK_TIMEOUT_MS = 1_000
STEP_BACK_S = (0.2, 1.0)
#: Longer than a writer can be stuck: each of its two statements may take 8 s, and the pause between them 15 s.
PATIENCE_S = 60

#: How often the server checks whether the client is still connected. Otherwise it would go on for a client that is
#: gone, and keep the lock.
CHECK_CLIENT_MS = 1_000
#: How far the clocks of streaming hosts may run ahead, in seconds.
MAX_MARGIN_S = 86_400


class BadViewer(Exception):
    """The streaming app accepts no viewer with this id. Raised by `check` and `erase`."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erase deleted. Views that were received up to `at` do not come back."""

    events: int
    playbacks: int
    at: datetime


#: While an erase has this lock, no worker writes: every transaction that writes views takes the same lock, shared. So
#: this erase deletes everything that was written before, and later writers see the tombstone. The commit releases the
#: lock.
_LOCK = text(f"SELECT pg_advisory_xact_lock({ERASURE_LOCK})")

#: PostgreSQL before version 14 does not know this setting, and some operating systems do not support it.
_CHECK_CLIENT = text(f"""
DO $$
BEGIN
    SET LOCAL client_connection_check_interval = {CHECK_CLIENT_MS};
EXCEPTION WHEN undefined_object OR invalid_parameter_value THEN
    NULL;
END
$$
""")

#: This is a statement of its own, so that it sees everything that was committed before it got the lock. It uses
#: `clock_timestamp()`, the time at which it runs. `now()` is the time at which the transaction began, before it waited.
#: A tombstone's time never moves back, even if a clock does.
#:
#: The ids stay known, but not whose they were. If a client is in doubt, it sends a view again with the same id. The
#: rule "the first one wins" must hold for an erased view, too.
_ERASE = text("""
WITH tombstone AS (
    INSERT INTO erasures AS known (viewer, erased_at)
    VALUES (sha256(convert_to(:viewer_id, 'UTF8')), clock_timestamp() + :margin)
        ON CONFLICT (viewer) DO UPDATE SET erased_at = greatest(known.erased_at, excluded.erased_at)
 RETURNING erased_at
), events AS (
    DELETE FROM view_events WHERE viewer_id = :viewer_id RETURNING event_id
), remembered AS (
    INSERT INTO erased_events (event_id) SELECT event_id FROM events ORDER BY event_id ON CONFLICT DO NOTHING
), derived AS (
    DELETE FROM playbacks WHERE viewer_id = :viewer_id RETURNING playback_id
)
SELECT (SELECT count(*) FROM events) AS events,
       (SELECT count(*) FROM derived) AS playbacks,
       (SELECT erased_at FROM tombstone) AS at
""")


def connect_patiently(url: str) -> Engine:
    """Make an engine for `erase`. It waits for an answer longer than a worker may, as a large history requires."""
    return connect(url, pool_size=1, answer_timeout_s=None)


def erase(engine: Engine, viewer_id: str, *, margin: timedelta = timedelta(0)) -> Erased:
    """Erase a viewer in one transaction. Doing it again is harmless, and erases what was received since.

    Views carry the time of the streaming app's host; the erase carries the time of the database. `margin` says how far
    the first may run ahead. Views of this viewer that are received within the margin are dropped, too.

    Raises BadViewer. Raises sqlalchemy.exc.DBAPIError if the database is away or a writer keeps the lock for
    PATIENCE_S. Then nothing was erased, unless the connection was lost during the commit.
    """
    check(viewer_id)
    return Retrying(
        retry=retry_if_exception(is_lock_timeout),
        wait=wait_random(*STEP_BACK_S),
        stop=stop_after_delay(PATIENCE_S),
        reraise=True,
    )(_erase, engine, viewer_id, margin)


def check(viewer_id: str) -> None:
    """Check that a viewer can have this id. Raises BadViewer."""
    if not is_viewer(viewer_id):
        raise BadViewer(f"{viewer_id[:128]!r} is no viewer: expected 1 to 128 characters, no control characters")


def is_lock_timeout(error: BaseException) -> bool:
    """Return whether the error is only a lock timeout (55P03)."""
    return isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.errors.LockNotAvailable)


def _erase(engine: Engine, viewer_id: str, margin: timedelta) -> Erased:
    with engine.begin() as transaction:
        # `view_events` has no index by viewer. In a large history this takes longer than a worker's statement may.
        transaction.execute(text(f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
        transaction.execute(_CHECK_CLIENT)
        transaction.execute(_LOCK)
        return Erased(**transaction.execute(_ERASE, {"viewer_id": viewer_id, "margin": margin}).mappings().one())


def main() -> None:
    """Run the command. Exit status 1: the database is away. 2: the viewer, the margin or a setting is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m history_worker.store.erasure", description="Erase a viewer for good."
    )
    parser.add_argument("viewer", metavar="VIEWER")
    parser.add_argument("--margin", metavar="SECONDS", type=float, default=0.0, help="how far hosts' clocks run ahead")
    arguments = parser.parse_args()
    if not 0 <= arguments.margin <= MAX_MARGIN_S:
        parser.error(f"--margin: {arguments.margin:g} is not between 0 and {MAX_MARGIN_S}")
    try:
        engine = connect_patiently(read(DatabaseSettings).database_url)
        erased = erase(engine, arguments.viewer, margin=timedelta(seconds=arguments.margin))
    except (BadViewer, SettingsError) as error:
        parser.error(str(error))
    except DBAPIError as error:
        # This does not say "nothing was erased": the connection may have been lost during the commit.
        reason = str(error.orig).splitlines()[0]
        sys.exit(f"{arguments.viewer} may not be erased: {reason}. Run it again; erasing twice is harmless.")
    sys.stdout.write(f"erased {arguments.viewer}: {erased.events} views of {erased.playbacks} playbacks\n")


if __name__ == "__main__":
    main()
