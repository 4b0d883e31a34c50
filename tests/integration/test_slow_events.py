"""An event that PostgreSQL takes too long for is found and set aside alone; who waits for somebody else never is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from celery.exceptions import Reject
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from history_worker import slow_events
from history_worker.slow_events import TRIES, SlowEventSearch, write_together
from safe_consumer import retry
from service import database
from service.database import TookTooLong
from tests.fakes import an_event
from tests.integration.database import a_database, an_empty
from tests.waiting import until
from view_events.event import ViewEvent, encode

#: Eighths of it must be enough for an ordinary write on a busy machine.
TIMEOUT_MS = 800
#: How the trigger knows its victim.
SLOW = "sloth"

TRIGGER = f"""
CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.viewer_id = '{SLOW}' THEN PERFORM pg_sleep(60); END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER slow BEFORE INSERT ON view_events FOR EACH ROW EXECUTE FUNCTION be_slow();
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with a_database() as url:
        engine = an_empty(url)
        with engine.begin() as connection:
            connection.execute(text(TRIGGER))
        engine.dispose()
        yield url


@pytest.fixture
def engine(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A worker's connection, whose statements may take little time."""
    an_empty(url).dispose()
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT_MS", TIMEOUT_MS)
    monkeypatch.setattr(retry, "OUTAGE_LOG", retry.OutageLog())
    monkeypatch.setattr(slow_events, "_tries", {})
    engine = database.connect(url, pool_size=1)
    yield engine
    engine.dispose()


@pytest.fixture
def somebody(url: str) -> Iterator[psycopg.Connection]:
    """Another session, whose locks go when it ends."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        yield connection


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def stored(url: str) -> set[str]:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return {str(row[0]) for row in connection.execute("SELECT event_id FROM view_events")}


def ids(events: list[ViewEvent]) -> set[str]:
    return {str(event.event_id) for event in events}


@pytest.mark.parametrize(("count", "place"), [(1, 0), (500, 377)])
def test_an_event_that_is_slow_by_itself_is_refused_and_all_others_are_stored(
    engine: Engine, url: str, count: int, place: int
) -> None:
    batch = [an_event(viewer_id=f"viewer-{number % 7}") for number in range(count)]
    batch[place] = slow = an_event(viewer_id=SLOW)
    found, refused = SlowEventSearch(engine, ("a task", 0)).write_storable(batch)
    assert found == count - 1
    assert [one.event for one in refused] == encode([slow])
    assert refused[0].reason == ("too-slow", "a statement took longer than 0.8 s")
    assert stored(url) == ids(batch) - ids([slow]), "and the event of nobody is not there"


def test_messages_that_share_a_transaction_are_tried_apart(engine: Engine, url: str) -> None:
    with pytest.raises(TookTooLong):
        write_together(engine, [an_event(), an_event(viewer_id=SLOW), an_event()])
    assert stored(url) == set()


def test_a_message_with_slow_events_lets_others_go_first(
    engine: Engine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slow_events, "ROUND_S", 0)
    slow, other = an_event(viewer_id=SLOW), an_event()
    rounds = 0
    while True:
        rounds += 1
        trial = SlowEventSearch(engine, ("a task", 0))
        try:
            found, refused = trial.write_storable([slow, other])
        except Reject as given_back:
            assert given_back.requeue
        else:
            break
    assert rounds == TRIES + 1
    assert ([one.event for one in refused], stored(url)) == (encode([slow]), ids([other]))
    trial.forget_tries()
    assert slow_events._tries == {}  # noqa: SLF001 (a redriven one begins anew)
    assert found <= 1


@pytest.mark.parametrize(
    "lock",
    [
        "LOCK TABLE view_events IN ACCESS EXCLUSIVE MODE",  # also TRUNCATE, VACUUM FULL
        "LOCK TABLE playbacks IN EXCLUSIVE MODE",
        "SELECT FROM playbacks WHERE viewer_id = 'alice' FOR UPDATE",
        f"SELECT pg_advisory_xact_lock({5_672_5433})",  # an erase
    ],
)
def test_who_waits_for_a_lock_is_no_slow_event(
    engine: Engine, url: str, somebody: psycopg.Connection, pool: ThreadPoolExecutor, lock: str
) -> None:
    playback_id = uuid4()
    first, *later = [an_event(playback_id=playback_id) for _ in range(4)]
    assert SlowEventSearch(engine, ("first", 0)).write_storable([first]) == (1, [])
    somebody.execute(lock)
    began = time.monotonic()
    with capture_logs() as logs:
        writing = pool.submit(lambda: SlowEventSearch(engine, ("later", 0)).write_storable(later))
        until(lambda: logs and time.monotonic() - began > 2 * TIMEOUT_MS / 1000, what="statements to run out of time")
        somebody.rollback()
        assert writing.result(20) == (3, [])
    assert [line["event"] for line in logs] == [
        "waited too long for a lock; the message stays unacknowledged",
        "nothing is in the way any more",
    ]
    assert stored(url) == ids([first, *later])


def test_one_viewers_lock_does_not_hold_up_messages_beside_it(engine: Engine, somebody: psycopg.Connection) -> None:
    known = an_event()
    SlowEventSearch(engine, ("first", 0)).write_storable([known])
    somebody.execute("SELECT FROM playbacks FOR UPDATE")
    with pytest.raises(Exception, match="lock timeout"):
        write_together(engine, [an_event(viewer_id="bob"), an_event(playback_id=known.playback_id)])


def test_a_database_that_is_slow_with_everything_gives_up_no_event(
    engine: Engine, url: str, pool: ThreadPoolExecutor
) -> None:
    """The twin of the first test: the same trigger, for everybody."""
    admin = an_empty(url)
    with admin.begin() as connection:
        connection.execute(text("ALTER FUNCTION be_slow() RENAME TO be_slow_with_one"))
        connection.execute(text(TRIGGER.split("CREATE TRIGGER", maxsplit=1)[0].replace(f"'{SLOW}'", "NEW.viewer_id")))
        connection.execute(
            text("CREATE TRIGGER slower BEFORE INSERT ON view_events FOR EACH ROW EXECUTE FUNCTION be_slow()")
        )
    batch = [an_event(), an_event()]
    began = time.monotonic()
    try:
        with capture_logs() as logs:
            writing = pool.submit(lambda: SlowEventSearch(engine, ("a task", 0)).write_storable(batch))
            until(
                lambda: time.monotonic() - began > (TRIES + 1) * TIMEOUT_MS / 1000,
                what="as many tries as end a slow event",
            )
            assert not writing.done()
    finally:
        with admin.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '20s'; DROP TRIGGER slower ON view_events"))
            connection.execute(text("DROP FUNCTION be_slow(); ALTER FUNCTION be_slow_with_one() RENAME TO be_slow"))
        admin.dispose()
    assert writing.result(20) == (2, [])
    assert logs[0]["event"] == "a statement took too long; the message stays unacknowledged"
    assert logs[0]["reason"] == "a statement took longer than 0.8 s"


def test_a_statement_that_somebody_cancels_is_told_as_that_and_is_nobodys_fault(
    engine: Engine, somebody: psycopg.Connection, pool: ThreadPoolExecutor
) -> None:
    cancel = "SELECT count(*) FILTER (WHERE pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    somebody.autocommit = True
    slow = an_event(viewer_id=SLOW)
    cancelled = 0

    def cancels() -> bool:
        nonlocal cancelled
        (ended,) = somebody.execute(cancel).fetchone() or (0,)
        cancelled += int(ended)
        return cancelled > TRIES

    with capture_logs() as logs:
        writing = pool.submit(lambda: SlowEventSearch(engine, ("a task", 0)).write_storable([slow]))
        until(cancels, what="more cancelled statements than tries")
        assert not writing.done()
        assert slow_events._tries == {}  # noqa: SLF001 (the point)
    assert logs[0]["event"] == "somebody cancelled a statement; the message stays unacknowledged"
    _, refused = writing.result(20)
    assert len(refused) == 1, "left to itself, it is slow"
