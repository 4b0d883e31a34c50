"""P7: how ten million existing rows affect writing, and reading a page."""

from __future__ import annotations

import random

from proof.bench import trial
from proof.bench.load import Generator, get
from proof.bench.load import Plan as Load
from proof.bench.measurements import Plan
from proof.bench.results import Figure, Limit, Series, divided, percentile
from proof.bench.rows import Rows
from proof.bench.systems import OURS, System, Systems
from proof.bench.traffic import VIEWERS
from streaming_app.access.auth import Tokens

FILLED = "filled"
ROWS, EVENTS = 10_000_000, 100_000
#: Rows per statement, so that the progress is visible and nothing waits for a huge transaction.
CHUNK_ROWS = 1_000_000
PAGES, READERS = 2_000, 2
P99_MS = 15.0

#: Ids are UUIDv7 of the last 300 days, in order. A playback has ten events; the viewers follow one another.
FILL_EVENTS = """
INSERT INTO view_events
SELECT (lpad(to_hex(ms), 12, '0') || '7' || lpad(to_hex(n % 4096), 3, '0') || '8' || lpad(to_hex(n), 15, '0'))::uuid,
       'viewer-' || lpad((n / 10 % {viewers})::text, 5, '0'), 'clip-' || n / 10 % 3 + 1,
       ('00000000-0000-4000-8000-' || lpad(to_hex(n / 10), 12, '0'))::uuid,
       CASE n % 10 WHEN 0 THEN 'started' WHEN 9 THEN 'finished' ELSE 'progress' END, n % 10 * 10,
       CASE n % 10 WHEN 0 THEN NULL ELSE n % 10 * 10 - 10 END, to_timestamp(ms / 1000.0), to_timestamp(ms / 1000.0)
  FROM generate_series({first}::bigint, {last}) AS n,
       LATERAL (SELECT (extract(epoch FROM now()) * 1000)::bigint - 25920000000 + n * 25920000000 / {rows}) AS t(ms)
"""
FILL_PLAYBACKS = """
INSERT INTO playbacks
SELECT viewer_id, playback_id, video_id, min(at), max(at), (array_agg(event_id ORDER BY event_id DESC))[1], 90, true,
       '{[0,90)}', count(*)
  FROM view_events GROUP BY viewer_id, playback_id, video_id
"""


def measure(systems: Systems, plan: Plan) -> list[Figure]:
    rows = plan.size(ROWS, CHUNK_ROWS) // CHUNK_ROWS * CHUNK_ROWS
    filled = _fill(systems, rows, plan)
    empty = systems[OURS]
    sides = {"an empty table": empty, f"{rows:,} rows": filled}
    ingest = {name: Series(name=f"ingest, {name}", unit="events/s") for name in sides}
    pages = {name: Series(name=f"history page p99, {name}", unit="ms") for name in sides}
    try:
        for _ in range(plan.rounds):
            for name, system in sides.items():
                plan.step(name)
                system.start()
                events = plan.size(EVENTS, 20_000)
                # Warm up: connections, caches and pages. After a checkpoint, each page is written to the log completely
                # once. A small table has few pages. For a large one, all of this cost falls into the two seconds
                # that count.
                system.rows.settle()
                trial.batches(system, events, into_empty=system is empty)
                trial.batches(system, events, into_empty=system is empty).note(ingest[name])
                pages[name].add(_page_p99_ms(systems, system, plan))
                system.stop()  # the other system has the same port
    finally:
        empty.stop()
        filled.stop()
    (first, second), (_, full_pages) = ingest.values(), pages.values()
    figure = Figure(
        name="P7",
        title=f"With {rows:,} rows there already",
        how=f"P1 into a table with {rows:,} events of 300 days and their playbacks, in turn with an empty table. "
        f"Before each, as many events are written that do not count, so that PostgreSQL is warm. Then {READERS} "
        f"readers ask for {PAGES:,} pages of `GET /api/history` of random viewers.",
        series=[second, first, *pages.values()],
        ratios=[divided(second, first, at_least=0.8)],
        limits=[Limit(what="history page, p99", unit="ms", values=full_pages.values, at_most=P99_MS)],
    )
    return [figure]


def _fill(systems: Systems, rows: int, plan: Plan) -> System:
    nodes = systems.nodes
    nodes.create_database(FILLED)
    nodes.migrate(FILLED)
    filler = Rows(nodes.postgres.url(FILLED))
    for first in range(0, rows, CHUNK_ROWS):
        plan.step(f"filling a table, {first:,} of {rows:,} rows are there")
        at = {"first": first, "last": first + CHUNK_ROWS - 1, "rows": rows, "viewers": VIEWERS}
        filler.execute(FILL_EVENTS.format(**at))
    plan.step("making the playbacks")
    filler.execute(FILL_PLAYBACKS)
    plan.step("VACUUM ANALYZE")
    filler.execute("VACUUM (ANALYZE) view_events")
    filler.execute("VACUUM (ANALYZE) playbacks")
    filler.close()
    return systems.make(OURS, FILLED)


def _page_p99_ms(systems: Systems, system: System, plan: Plan) -> float:
    """Measure through the streaming app and the history API, as a page does."""
    tokens, draw = Tokens(systems.nodes.state.secret("secret_key")), random.Random(1)
    api = systems.history_api(system.database)
    viewers = [f"viewer-{draw.randrange(VIEWERS):05}" for _ in range(plan.size(PAGES, 400))]
    requests = [get("/api/history", {"Authorization": f"Bearer {tokens.viewer(viewer)}"}) for viewer in viewers]
    try:
        api.start()
        api.wait(systems.history_api_answers, "it listened")
        for part in (requests[: READERS * 50], requests):  # the first requests open connections
            clients = [part[reader::READERS] for reader in range(READERS)]
            outcome = Generator(Load(port=system.port, clients=clients, status=200)).wait()
    finally:
        api.stop()
    return percentile([(answered - sent) * 1000 for _, sent, answered in outcome.times], 99)
