"""Erasing: whatever a writer and an erase do at the same time, nothing that was received before comes back.

A writer is caught after it has looked for tombstones by a row with the id that it is about to write: not committed yet,
so the writer waits for it. An erase is caught in the middle by a lock on a row that it is about to delete.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from history_worker.store import erasure, writer
from history_worker.store.erasure import BadViewer, Erased, erase
from history_worker.store.migrations.__main__ import upgrade
from history_worker.store.queries import history
from history_worker.store.writer import write
from proof.chaos.recompute import playbacks_differ
from safe_consumer.retry import until_committed
from service import database
from tests.demo import environment, program
from tests.fakes import an_event
from tests.integration.database import a_database, an_empty
from tests.waiting import until
from view_events.event import ViewEvent

SOON = timedelta(seconds=30)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An erase that does not step back, so that a test knows where it is."""
    monkeypatch.setattr(erasure, "LOCK_TIMEOUT_MS", 30_000)


def count(engine: Engine, query: str, **values: Any) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(query), values).scalar_one())


def stored(engine: Engine, viewer_id: str = "alice") -> int:
    """Everything that is left of a viewer."""
    return sum(
        count(engine, f"SELECT count(*) FROM {table} WHERE viewer_id = :viewer_id", viewer_id=viewer_id)
        for table in ("view_events", "playbacks")
    )


def waiting(engine: Engine, what: str) -> int:
    """Who waits for a lock of this kind: `advisory`, or `transactionid` (a row that is not committed yet)."""
    return count(engine, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = :what", what=what)


def batch(number: int = 3, **fields: Any) -> list[ViewEvent]:
    fields = {"playback_id": uuid4(), **fields}
    return [an_event(position_s=float(n), played_from_s=max(0.0, n - 1.0), **fields) for n in range(number)]


@contextmanager
def a_writer_that_has_looked(
    engine: Engine, pool: ThreadPoolExecutor, events: list[ViewEvent]
) -> Iterator[tuple[Future[int], Callable[[], None]]]:
    """It waits for a row until the yielded function is called."""
    with engine.connect() as blocker:
        blocker.execute(
            text("INSERT INTO view_events SELECT :id, 'blocker', 'clip-1', :id, 'started', 0, NULL, now(), now()"),
            {"id": max(event.event_id for event in events)},
        )
        writing = pool.submit(write, engine, events)
        until(lambda: waiting(engine, "transactionid"), what="the writer to have looked")
        yield writing, blocker.rollback


@contextmanager
def an_erase_in_the_middle(
    engine: Engine, pool: ThreadPoolExecutor, viewer_id: str = "alice", *, erasing: Engine | None = None
) -> Iterator[tuple[Future[Erased], Callable[[], None]]]:
    """It has its lock and waits for a row of the viewer until the yielded function is called."""
    write(engine, [an_event(viewer_id=viewer_id)])
    with engine.connect() as blocker:
        blocker.execute(text("SELECT FROM view_events WHERE viewer_id = :id FOR UPDATE"), {"id": viewer_id})
        future = pool.submit(erase, erasing or engine, viewer_id)
        until(lambda: waiting(engine, "transactionid"), what="the erase to be in the middle")
        yield future, blocker.rollback


# -- what it does ------------------------------------------------------------------------------------------------------


def test_it_takes_all_of_one_viewer_and_nothing_of_another(engine: Engine) -> None:
    write(engine, batch(3) + batch(2) + batch(4, viewer_id="bob"))
    before = stored(engine, "bob")
    erased = erase(engine, "alice")
    assert (erased.events, erased.playbacks) == (5, 2)
    assert stored(engine) == 0
    assert history(engine, "alice")["items"] == []
    assert stored(engine, "bob") == before == 4 + 1


def test_what_was_received_before_is_dropped_whenever_it_arrives(engine: Engine) -> None:
    late = batch(3)
    erase(engine, "alice")
    for _ in range(2):
        assert write(engine, late) == 0
    assert stored(engine) == 0


def test_the_others_of_the_same_message_are_stored(engine: Engine) -> None:
    late, others = batch(3), batch(3, viewer_id="bob")
    erase(engine, "alice")
    assert write(engine, [event for pair in zip(late, others, strict=True) for event in pair]) == 3
    assert stored(engine) == 0
    assert stored(engine, "bob") == 3 + 1


def test_what_is_received_later_counts_again_also_of_the_same_playback(engine: Engine) -> None:
    before = batch(3, playback_id=UUID(int=1), kind="finished")
    write(engine, before)
    erase(engine, "alice")
    after = batch(5, playback_id=UUID(int=1))
    assert write(engine, before[:1] + after) == 5
    (item,) = history(engine, "alice")["items"]
    assert (item["position_s"], item["watched_s"], item["finished"]) == (4.0, 4.0, False)
    with engine.connect() as connection:
        assert playbacks_differ(connection) == []


@pytest.mark.parametrize("was_stored", [True, False])
def test_an_erased_event_that_a_client_sends_again_does_not_come_back(engine: Engine, *, was_stored: bool) -> None:
    """A client in doubt sends the same id again. By then it has another `received_at`, later than the erase."""
    event = an_event()
    if was_stored:
        write(engine, [event])
    erase(engine, "alice")
    if not was_stored:
        write(engine, [event])  # on its way at the time of the erase
    assert write(engine, [an_event(event_id=event.event_id)]) == 0
    assert stored(engine) == 0


def test_erasing_again_is_harmless_and_takes_what_came_since(engine: Engine) -> None:
    first = erase(engine, "alice")
    later = batch(2)
    second = erase(engine, "alice")
    assert (second.events, second.playbacks) == (0, 0)
    assert second.at > first.at
    assert write(engine, later) == 0


def test_a_tombstone_never_moves_back(engine: Engine) -> None:
    first = erase(engine, "alice", margin=SOON)
    assert erase(engine, "alice").at == first.at


def test_the_margin_is_for_hosts_whose_clocks_run_ahead(engine: Engine) -> None:
    ahead = datetime.now(UTC) + SOON / 2
    erase(engine, "alice")
    assert write(engine, batch(1, received_at=ahead)) == 1
    assert erase(engine, "alice", margin=SOON).events == 1
    assert write(engine, batch(1, received_at=ahead)) == 0
    assert write(engine, batch(1, received_at=ahead + SOON)) == 1


def test_the_name_of_who_was_erased_is_not_kept(engine: Engine) -> None:
    write(engine, batch(viewer_id="alice-in-wonderland"))
    erase(engine, "alice-in-wonderland")
    with engine.connect() as connection:
        for table in ("erasures", "erased_events", "view_events", "playbacks"):
            rows = [str(row) for row in connection.execute(text(f"SELECT to_jsonb(t) FROM {table} AS t"))]
            assert not any("alice" in row for row in rows)


@pytest.mark.parametrize("viewer_id", ["é", "名前", "a" * 128, "' OR true --", "%s :viewer_id", " "])
def test_every_name_that_a_viewer_may_have_can_be_erased(engine: Engine, viewer_id: str) -> None:
    late = batch(1, viewer_id=viewer_id)
    write(engine, [*batch(1, viewer_id=viewer_id), *batch(1, viewer_id="bob")])
    assert erase(engine, viewer_id).events == 1
    assert write(engine, late) == 0
    assert stored(engine, "bob") == 2


@pytest.mark.parametrize("viewer_id", ["", "a" * 129, "nul\0", "line\n", "\x9f", "\udcff"])
def test_what_no_viewer_can_be_named_is_refused(engine: Engine, viewer_id: str) -> None:
    with pytest.raises(BadViewer, match="is no viewer"):
        erase(engine, viewer_id)
    assert count(engine, "SELECT count(*) FROM erasures") == 0


# -- at the same time --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("patient")
def test_an_erase_waits_for_a_writer_that_has_looked(engine: Engine, pool: ThreadPoolExecutor) -> None:
    with a_writer_that_has_looked(engine, pool, batch(3)) as (writing, let_go):
        erasing = pool.submit(erase, engine, "alice")
        until(lambda: waiting(engine, "advisory"), what="the erase to wait")
        let_go()
    assert writing.result() == 3
    assert erasing.result().events == 3
    assert stored(engine) == 0


@pytest.mark.usefixtures("patient")
def test_a_writer_waits_for_an_erase_and_then_sees_it(engine: Engine, pool: ThreadPoolExecutor) -> None:
    with an_erase_in_the_middle(engine, pool) as (erasing, let_go):
        writing = pool.submit(write, engine, batch(3))
        until(lambda: waiting(engine, "advisory"), what="the writer to wait")
        let_go()
    assert erasing.result().events == 1
    assert writing.result() == 0
    assert stored(engine) == 0


def test_without_the_lock_a_writer_that_has_looked_brings_the_erased_back(
    engine: Engine, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the check above can fail."""
    monkeypatch.setattr(writer, "LOCK", text("SELECT 1"))
    with a_writer_that_has_looked(engine, pool, batch(3)) as (writing, let_go):
        erased = erase(engine, "alice")
        let_go()
    assert erased.events == 0
    assert writing.result() == 3
    assert stored(engine) == 3 + 1


@pytest.mark.usefixtures("patient")
def test_with_lock_and_look_in_one_statement_a_writer_that_waited_brings_the_erased_back(
    engine: Engine, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what a statement sees is from before it waited."""
    one = str(writer.WRITE).replace("WITH sent AS (", f"WITH locked AS MATERIALIZED ({writer.LOCK}), sent AS (")
    one = one.replace("json_to_recordset(", "locked, json_to_recordset(")
    monkeypatch.setattr(writer, "LOCK", text("SELECT 1"))
    monkeypatch.setattr(writer, "WRITE", text(one.replace("SELECT *\n", "SELECT sent.*\n")))
    with an_erase_in_the_middle(engine, pool) as (erasing, let_go):
        writing = pool.submit(write, engine, batch(3))
        until(lambda: waiting(engine, "advisory"), what="the writer to wait")
        let_go()
    assert erasing.result().events == 1
    assert writing.result() == 3
    assert stored(engine) == 3 + 1


def test_a_writer_that_waits_longer_than_a_statement_may_tries_again(
    url: str, engine: Engine, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told that it waits for a lock: the message stays held, and nothing of it is lost."""
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT_MS", 500)
    hasty = database.connect(url, pool_size=1)
    outages: list[str | None] = []

    def attempt() -> int:
        try:
            return write(hasty, batch(3))
        except DBAPIError as error:
            outages.append(getattr(error.orig, "sqlstate", None))
            raise

    with engine.connect() as erasing:
        erasing.execute(text(f"SELECT pg_advisory_xact_lock({writer.ERASURE_LOCK})"))
        writing = pool.submit(until_committed, attempt)
        until(lambda: len(outages) > 1, what="the writer to give up twice")
    assert writing.result(10) == 3
    assert set(outages) == {"55P03"}
    hasty.dispose()


@pytest.mark.usefixtures("patient")
def test_an_erase_may_take_longer_than_a_statement_of_a_worker(
    url: str, engine: Engine, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "STATEMENT_TIMEOUT_MS", 100)
    hasty = database.connect(url, pool_size=4)
    long = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid' AND now() - query_start > '0.3 s'"
    with an_erase_in_the_middle(hasty, pool) as (erasing, let_go):
        until(lambda: erasing.done() or count(engine, long), what="the erase to take long")
        let_go()
    assert erasing.result().events == 1
    hasty.dispose()


@pytest.mark.usefixtures("patient")
def test_an_erase_may_take_longer_than_a_worker_waits_for_an_answer(
    url: str, engine: Engine, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that it closed would not stop the server, which goes on with the lock and then rolls it all back."""
    hasty = {**(database.connect.__kwdefaults__ or {}), "answer_timeout_s": 0.2}
    monkeypatch.setattr(database.connect, "__kwdefaults__", hasty)
    patient = erasure.connect_patiently(url)
    long = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid' AND now() - query_start > '0.6 s'"
    with an_erase_in_the_middle(engine, pool, erasing=patient) as (erasing, let_go):
        until(lambda: erasing.done() or count(engine, long), what="the erase to take long")
        let_go()
    assert erasing.result().events == 1
    patient.dispose()


def test_an_erase_whose_program_was_killed_gives_the_lock_back(engine: Engine) -> None:
    """Although its statement has not come to its end."""
    erasing = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted"
        f" AND objid = {writer.ERASURE_LOCK}"
    )
    write(engine, batch(1))
    program = "from history_worker.store import erasure; erasure.LOCK_TIMEOUT_MS = 600_000; erasure.main()"
    with engine.connect() as blocker:
        blocker.execute(text("SELECT FROM view_events WHERE viewer_id = 'alice' FOR UPDATE"))
        url = engine.url.render_as_string(hide_password=False)
        command = [sys.executable, "-c", program, "alice"]
        with subprocess.Popen(command, env=environment(DATABASE_URL=url)) as process:
            until(lambda: waiting(engine, "transactionid"), what="the erase to be in the middle")
            assert count(engine, erasing) == 1
            process.kill()
        until(lambda: not count(engine, erasing), what="the lock to be free")
    assert stored(engine) == 2


def test_writers_pass_while_an_erase_waits_for_one_that_is_stuck(engine: Engine, pool: ThreadPoolExecutor) -> None:
    with a_writer_that_has_looked(engine, pool, batch(1)) as (stuck, let_go):
        erasing = pool.submit(erase, engine, "alice")
        until(lambda: waiting(engine, "advisory"), what="the erase to wait")
        assert pool.submit(write, engine, batch(3, viewer_id="bob")).result(10) == 3
        assert not erasing.done()
        let_go()
    stuck.result()
    assert erasing.result().events == 1


def test_an_erase_says_so_when_a_writer_does_not_let_go(
    engine: Engine, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "LOCK_TIMEOUT_MS", 50)
    monkeypatch.setattr(erasure, "PATIENCE_S", 0.2)
    with a_writer_that_has_looked(engine, pool, batch(1)) as (stuck, let_go):
        with pytest.raises(DBAPIError, match="lock timeout"):
            erase(engine, "alice")
        let_go()
    assert stuck.result() == 1


def test_a_writer_frozen_in_the_middle_holds_nobody_up_for_long(
    url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen with the lock in its hands. When it goes on, its transaction is gone: an outage, and it tries again."""
    monkeypatch.setattr(database, "IDLE_IN_TRANSACTION_TIMEOUT_MS", 300)
    worker = database.connect(url, pool_size=1)
    with worker.connect() as frozen:
        frozen.execute(writer.LOCK)
        began = datetime.now(UTC)
        erase(engine, "alice")
        assert datetime.now(UTC) - began > timedelta(seconds=0.2)
        with pytest.raises(DBAPIError) as thawed:
            frozen.execute(text("SELECT 1"))
        assert database.is_outage(thawed.value)
    assert write(worker, batch(2)) == 2
    worker.dispose()


def test_many_writers_and_erases_leave_nothing_that_was_received_before_and_never_deadlock(
    engine: Engine, pool: ThreadPoolExecutor
) -> None:
    viewers = ("alice", "bob")
    batches = [[an_event(viewer_id=viewers[n % 2], playback_id=UUID(int=n % 7)) for n in range(20)] for _ in range(30)]
    writing = [pool.submit(write, engine, events) for events in batches * 2]
    erased = [erase(engine, "alice") for _ in range(10)]
    stored_rows = sum(one.result() for one in writing)
    after = erase(engine, "alice")
    events = [event for events in batches for event in events]
    of_bob = sum(event.viewer_id == "bob" for event in events)
    assert stored_rows == of_bob + sum(one.events for one in [*erased, after])
    assert stored(engine) == 0
    with engine.connect() as connection:
        assert playbacks_differ(connection) == []


# -- around it ---------------------------------------------------------------------------------------------------------


def test_a_database_from_before_gets_the_tables() -> None:
    with a_database() as url:
        engine = an_empty(url)
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE erasures, erased_events"))
            connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
            connection.execute(
                text("INSERT INTO view_events SELECT :id, 'alice', 'c', :id, 'started', 0, NULL, now(), now()"),
                {"id": uuid4()},
            )
        upgrade(url)
        assert erase(engine, "alice").events == 1
        engine.dispose()


@pytest.mark.parametrize(("answer", "status", "left"), [("y\n", 0, 0), ("n\n", 1, 4)])
def test_a_terminal_is_asked(url: str, engine: Engine, answer: str, status: int, left: int) -> None:
    write(engine, batch(3))
    ours, theirs = os.openpty()
    try:
        os.write(ours, answer.encode())
        done = subprocess.run(
            [*program(), "erase", "alice"],
            env=environment(DATABASE_URL=url),
            stdin=theirs,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert "Erase all that alice has watched?" in done.stderr
    assert (done.returncode, stored(engine)) == (status, left), done.stderr
    assert ("erased alice: 3 views of 1 playback." in done.stdout) == (left == 0)


def test_a_database_that_is_away_is_named(url: str, engine: Engine) -> None:
    write(engine, batch(3))

    def run(database_url: str) -> subprocess.CompletedProcess[str]:
        command = [*program(), "erase", "alice", "--yes"]
        variables = environment(DATABASE_URL=database_url)
        return subprocess.run(
            command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )

    away = run("postgresql://nobody@127.0.0.1:1/x")
    assert (away.returncode, "Could not erase alice: " in away.stderr) == (1, True)
    wrong = run("mysql://x")
    assert (wrong.returncode, "DATABASE_URL: 'mysql:" in wrong.stderr) == (2, True)
    assert stored(engine) == 4
    assert "erased alice: 3 views of 1 playback." in run(url).stdout


def test_it_can_be_done_where_only_the_services_are(url: str, engine: Engine) -> None:
    write(engine, batch(3))

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "history_worker.store.erasure", *arguments]
        return subprocess.run(command, env=environment(**variables), capture_output=True, text=True, check=False)

    done = run("alice", DATABASE_URL=url)
    assert (done.returncode, done.stdout) == (0, "erased alice: 3 views of 1 playbacks\n"), done.stderr
    assert stored(engine) == 0
    wrong = run("", DATABASE_URL=url)
    assert (wrong.returncode, "is no viewer" in wrong.stderr) == (2, True)
    away = run("alice", DATABASE_URL="postgresql://nobody@127.0.0.1:1/x")
    assert (away.returncode, "alice may not be erased: " in away.stderr) == (1, True)
    for margin in ("-1", "nan", "86401"):
        wrong = run("alice", "--margin", margin, DATABASE_URL=url)
        assert (wrong.returncode, "is not between 0 and 86400" in wrong.stderr) == (2, True)
