"""Erases a viewer: what is stored goes, and what is still on its way is dropped when it arrives.

`flixtrail erase` does it from a terminal; `python -m history_worker.erasure VIEWER` where only the services are.
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

from history_worker.database import connect
from history_worker.settings import DatabaseSettings
from history_worker.writer import ERASURE_LOCK
from view_events.event import is_viewer
from view_events.settings import SettingsError, read

#: Writers that begin while an erase waits, wait behind it. So it waits for a moment only, steps back for another one
#: that lets them pass, and tries again.
LOCK_TIMEOUT_MS = 1_000
STEP_BACK_S = (0.2, 1.0)
#: Longer than a writer can be stuck: each of its two statements may take 8 s, and the pause between them 15 s.
PATIENCE_S = 60

#: How often the server looks whether who erases is still there: it would otherwise finish for nobody, with the lock.
CHECK_CLIENT_MS = 1_000
#: How far the clocks of streaming hosts may run ahead.
MAX_MARGIN_S = 86_400


class BadViewer(Exception):
    """No viewer can have this id: the streaming app would not have taken it. Raised by `check` and `erase`."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erase took away. Views that were received up to `at` do not come back."""

    events: int
    playbacks: int
    at: datetime


#: Nobody writes while this is held: every transaction that writes views holds the same lock, shared. So all that was
#: written before is seen here and deleted, and all that is written later sees the tombstone. It goes with the commit.
_LOCK = text(f"SELECT pg_advisory_xact_lock({ERASURE_LOCK})")

#: Servers before PostgreSQL 14 do not know it, and on some systems none can do it.
_CHECK_CLIENT = text(f"""
DO $$
BEGIN
    SET LOCAL client_connection_check_interval = {CHECK_CLIENT_MS};
EXCEPTION WHEN undefined_object OR invalid_parameter_value THEN
    NULL;
END
$$
""")

#: A statement of its own, so that what it sees is younger than the lock. `clock_timestamp()` is the time at which it
#: runs; `now()` were that of the transaction's begin, before it waited. A tombstone never moves back, as clocks may.
#:
#: The ids stay known, without whose they were: a client in doubt sends a view again under its id, and "the first one
#: wins" must hold for one that was erased, too.
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
    """An engine for `erase`: it waits for the answer. In a large history that comes later than a worker may wait."""
    return connect(url, pool_size=1, answer_s=None)


def erase(engine: Engine, viewer_id: str, *, margin: timedelta = timedelta(0)) -> Erased:
    """Erase a viewer in one transaction. Doing it again is harmless, and erases what was received since.

    Views carry the clock of the streaming app's host, the erase carries the database's: `margin` is by how much the
    former may run ahead. Views of theirs that are received within it are dropped, too.

    Raises BadViewer; sqlalchemy.exc.DBAPIError when the database is away or a writer does not let go for PATIENCE_S:
    then nothing was erased, unless the connection went away during the commit.
    """
    check(viewer_id)
    return Retrying(
        retry=retry_if_exception(is_lock_timeout),
        wait=wait_random(*STEP_BACK_S),
        stop=stop_after_delay(PATIENCE_S),
        reraise=True,
    )(_erase, engine, viewer_id, margin)


def check(viewer_id: str) -> None:
    """Raises BadViewer."""
    if not is_viewer(viewer_id):
        raise BadViewer(f"{viewer_id[:128]!r} is no viewer: expected 1 to 128 characters, no control characters")


def is_lock_timeout(error: BaseException) -> bool:
    """Whether it only waited too long for others (55P03)."""
    return isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.errors.LockNotAvailable)


def _erase(engine: Engine, viewer_id: str, margin: timedelta) -> Erased:
    with engine.begin() as transaction:
        # `view_events` has no index by viewer: in a large history this takes longer than a statement of a worker may.
        transaction.execute(text(f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}"))
        transaction.execute(_CHECK_CLIENT)
        transaction.execute(_LOCK)
        return Erased(**transaction.execute(_ERASE, {"viewer_id": viewer_id, "margin": margin}).mappings().one())


def main() -> None:
    """Exit status 1: the database is away; 2: the viewer, the margin or a setting is wrong."""
    parser = argparse.ArgumentParser(prog="python -m history_worker.erasure", description="Erase a viewer for good.")
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
        # Not "nothing was erased": the connection may have gone away during the commit.
        reason = str(error.orig).splitlines()[0]
        sys.exit(f"{arguments.viewer} may not be erased: {reason}. Run it again; erasing twice is harmless.")
    sys.stdout.write(f"erased {arguments.viewer}: {erased.events} views of {erased.playbacks} playbacks\n")


if __name__ == "__main__":
    main()
