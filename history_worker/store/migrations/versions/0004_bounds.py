"""Makes the tables check what the streaming app checks, and limits the size of a playback.

- `view_events` and `playbacks` get CHECK constraints. PostgreSQL refuses an event that breaks one (SQLSTATE 23514), and
  the worker dead-letters it. Existing rows do not change. If all of them are fine, the constraints are validated. If
  not, the constraints stay NOT VALID: they hold for new rows only, and the log says so.
- `playbacks.played` keeps about fifty ranges at most. Two functions do that, and `played_gap_s` stores how coarse a
  playback has become (docs/decisions/0004-what-is-derived.md). Playbacks that are larger already are made smaller, one
  row after another, while workers write.

Workers of the previous version go on at the same time. They do not call the functions: a playback that they write may
grow further, until a worker of this version writes to it.
"""

from __future__ import annotations

import psycopg
import sqlalchemy as sa
import structlog
from alembic import op
from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

revision = "0004"
down_revision = "0003"

log = structlog.get_logger(__name__)

#: While a migration waits for a table, everybody who comes later waits behind it. So it waits only for a moment, then
#: lets them pass, and tries again.
LOCK_TIMEOUT_MS = 1_000
STEP_BACK_S = (0.2, 1.0)
PATIENCE_S = 120
TIMEOUTS = f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}; SET LOCAL statement_timeout = 0;"

#: The longest position, in seconds: a week, as in `POST /api/views`.
LONGEST_S = 604_800
#: The range of times that psycopg can read.
YEARS = ("'0001-01-01 00:00:00+00'", "'10000-01-01 00:00:00+00'")
#: Constraints by table and name. For PostgreSQL, NaN is greater than every number, so an upper bound refuses it. There
#: are few constraints, because each costs 15 us more for a statement that writes a single event.
CHECKS = {
    "view_events": {
        "view_events_words": r"""
            (kind = 'progress' OR kind = 'started' OR kind = 'finished')
            AND char_length(video_id) BETWEEN 1 AND 128 AND video_id !~ '[^A-Za-z0-9._-]'
            AND char_length(viewer_id) BETWEEN 1 AND 128 AND viewer_id !~ '[\u0001-\u001f\u007f-\u009f]'
        """,
        "view_events_numbers": f"""
            position_s >= 0 AND position_s <= {LONGEST_S}
            AND (played_from_s IS NULL OR (played_from_s >= 0 AND played_from_s <= position_s))
            AND at >= {YEARS[0]} AND at < {YEARS[1]} AND received_at >= {YEARS[0]} AND received_at < {YEARS[1]}
        """,
    },
    "playbacks": {
        "playbacks_numbers": f"""
            position_s >= 0 AND position_s <= {LONGEST_S} AND started_at <= last_at AND events > 0 AND played_gap_s >= 0
        """,
    },
}

#: How many ranges remain at most when gaps are closed. A playback whose ranges take less than 960 bytes (some fifty
#: ranges) keeps them as they are: see history_worker/store/writer.py.
MOST_LEFT = 32
STEPS_S = ", ".join(f"{2**step / 10:.1f}" for step in range(24))  # up to 838,860.8: longer than any video
_FUNCTIONS = f"""
CREATE OR REPLACE FUNCTION played_gap(ranges nummultirange, gap_s numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN gaps[{MOST_LEFT}] IS NULL THEN gap_s
                ELSE coalesce((SELECT min(step) FROM unnest(ARRAY[{STEPS_S}]) AS step
                                WHERE step >= gaps[{MOST_LEFT}]), gaps[{MOST_LEFT}])
           END
      FROM (SELECT array_agg(gap ORDER BY gap DESC) AS gaps
              FROM (SELECT lower(part) - lag(upper(part)) OVER () AS gap
                      FROM unnest(ranges) AS part) AS between_two
             WHERE gap > gap_s) AS found
$$;
CREATE OR REPLACE FUNCTION played_without(ranges nummultirange, gap_s numeric) RETURNS nummultirange
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ranges + coalesce(range_agg(numrange(before, after)) FILTER (WHERE after - before <= gap_s), '{{}}')
      FROM (SELECT lag(upper(part)) OVER () AS before, lower(part) AS after
              FROM unnest(ranges) AS part) AS between_two
$$;
COMMENT ON FUNCTION played_gap IS
    'Which gaps have to be closed (up to so many seconds), so that at most {MOST_LEFT} ranges remain; at least gap_s';
COMMENT ON FUNCTION played_without IS 'The ranges, with all gaps between them closed that are up to gap_s seconds long';
"""  # noqa: S608 (numbers of ours)
#: Up to this size a row is neither compressed nor moved to a TOAST table. That would take longer than all the rest.
_COLUMN = """
ALTER TABLE playbacks
  ADD COLUMN IF NOT EXISTS played_gap_s numeric NOT NULL DEFAULT 0,
  SET (toast_tuple_target = 4096)
"""

#: The migration looks at rows whose `played` has more bytes. It reads no range: the row contains the size of a large
#: value.
CROWDED_BYTES = 960
_CROWDED = sa.text("SELECT viewer_id, playback_id, video_id FROM playbacks WHERE pg_column_size(played) > :bytes")
#: Takes no lock, because it takes half a second for 200,000 ranges.
_SMALLER = sa.text("""
SELECT events, played_gap_s AS before_s, gap_s, CAST(played_without(ranges, gap_s) AS text) AS played
  FROM (SELECT *, played_gap(ranges, played_gap_s) AS gap_s
          FROM (SELECT events, played_gap_s,
                       (SELECT range_agg(numrange(round(lower(part), 1), round(upper(part), 1)))
                          FROM unnest(played) AS part) AS ranges
                  FROM playbacks
                 WHERE (viewer_id, playback_id, video_id) = (:viewer_id, :playback_id, :video_id)
                OFFSET 0) AS rounded
        OFFSET 0) AS measured
""")
#: Changes nothing if an event was counted meanwhile.
_REPLACE = sa.text("""
UPDATE playbacks SET played = CAST(:played AS nummultirange), played_gap_s = :gap_s
 WHERE (viewer_id, playback_id, video_id) = (:viewer_id, :playback_id, :video_id)
   AND (events, played_gap_s) = (:events, :before_s)
""")
TRIES = 100

#: A hostile publisher may have stored such values. A row keeps its position until a later event comes, so PostgreSQL
#: would refuse that viewer's next event.
_REPAIR = f"""
UPDATE playbacks
   SET position_s = CASE WHEN position_s >= 0 THEN least(position_s, {LONGEST_S}) ELSE 0 END,
       played = played * nummultirange(numrange(0, {LONGEST_S})),
       events = greatest(events, 1)
 WHERE NOT (position_s >= 0 AND position_s <= {LONGEST_S} AND events > 0)
"""  # noqa: S608 (numbers of ours)


def upgrade() -> None:
    """Add the constraints and the functions. You may interrupt this anywhere and run it again."""
    with op.get_context().autocommit_block():
        _patiently(f"{TIMEOUTS} {_COLUMN}; {_FUNCTIONS}")
        # The events come first: a value that they refuse can no longer reach the playbacks.
        _check("view_events")
        op.execute(_REPAIR)
        _check("playbacks")
        _make_smaller()


def downgrade() -> None:
    """Drop the constraints and functions. Playbacks that were made coarser stay so."""
    for table, checks in CHECKS.items():
        for name in checks:
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    op.execute("ALTER TABLE playbacks DROP COLUMN played_gap_s, RESET (toast_tuple_target)")
    op.execute("DROP FUNCTION played_gap; DROP FUNCTION played_without")


def _check(table: str) -> None:
    """Add the table's missing constraints, and validate them one by one while workers write."""
    known = sa.text("SELECT conname FROM pg_constraint WHERE conrelid = CAST(:table AS regclass) AND contype = 'c'")
    there = set(op.get_bind().execute(known, {"table": f"public.{table}"}).scalars())
    missing = {name: rule for name, rule in CHECKS[table].items() if name not in there}
    added = [f"ADD CONSTRAINT {name} CHECK ({rule}) NOT VALID" for name, rule in missing.items()]
    if added:
        _patiently(f"{TIMEOUTS} ALTER TABLE {table} {', '.join(added)}")
    for name in CHECKS[table]:
        try:
            op.execute(f"SET statement_timeout = 0; ALTER TABLE {table} VALIDATE CONSTRAINT {name}")
        except DBAPIError as error:
            if not isinstance(error.orig, psycopg.errors.CheckViolation):
                raise
            log.warning("rows from before break a constraint; it holds for new rows only", table=table, constraint=name)


def _make_smaller() -> None:
    """Make large playbacks smaller, one row after another. A row is locked while fifty ranges are written."""
    connection = op.get_bind()
    crowded = connection.execute(_CROWDED, {"bytes": CROWDED_BYTES}).mappings().all()
    for key in crowded:
        for _ in range(TRIES):
            row = connection.execute(_SMALLER, dict(key)).mappings().one_or_none()
            if row is None or connection.execute(_REPLACE, {**key, **row}).rowcount:
                break
    if crowded:
        log.info("playbacks made smaller", playbacks=len(crowded))


def _patiently(statements: str) -> None:
    """Run the statements in one transaction; retry after a lock timeout."""
    Retrying(
        retry=retry_if_exception(_is_lock_timeout),
        wait=wait_random(*STEP_BACK_S),
        stop=stop_after_delay(PATIENCE_S),
        reraise=True,
    )(_execute, statements)


def _execute(statements: str) -> None:
    # Several statements sent at once are one transaction, also in autocommit mode.
    op.get_bind().exec_driver_sql(statements)


def _is_lock_timeout(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.errors.LockNotAvailable)
