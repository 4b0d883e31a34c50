"""Partitions: the table becomes one while views are written, months are made and detached, and no view is lost."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Event
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, NullPool, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError

from history_worker.store import partitions, writer
from history_worker.store.erasure import erase
from history_worker.store.migrations.__main__ import configuration, upgrade
from history_worker.store.partitions import DEFAULT, attached, clock, detach, listed, make, past, prune
from history_worker.store.queries import history, receipts
from history_worker.store.retention import MONTHS_AHEAD, Month, months_ahead, oldest_kept
from history_worker.store.roles import ERASER, MIGRATOR, READER, WRITER, RolesSettings, create, grant
from history_worker.store.tables import SCHEMA_LOCK, metadata
from history_worker.store.writer import write
from proof.chaos.recompute import playbacks_differ
from service.database import connect
from tests.demo import environment, program
from tests.fakes import an_event
from tests.integration import writer_before
from tests.integration.database import a_server
from tests.waiting import until
from view_events.event import ViewEvent, first_id

#: For tests in which all that is there now is past.
LATER = datetime.now(UTC) + timedelta(days=600)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with a_server() as url:
        yield url


@pytest.fixture(scope="module")
def before(server: str) -> str:
    """The name of a database from before there were partitions. The others are copies of it."""
    with psycopg.connect(plain(server), autocommit=True) as admin:
        admin.execute("CREATE DATABASE before_partitions")
    command.upgrade(configuration(database(server, "before_partitions")), "0002")
    return "before_partitions"


def database(server: str, name: str) -> str:
    return make_url(server).set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def url(server: str, before: str) -> Iterator[str]:
    """A database of its own, from before there were partitions."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(plain(server), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {before}")
        yield database(server, name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(autouse=True)
def _writers_of_the_version_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables begin as that version had them, and its writers go on while they are changed."""
    monkeypatch.setattr(writer, "WRITE", writer_before.WRITE)


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = connect(url, pool_size=8)
    yield engine
    engine.dispose()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def at(when: datetime) -> UUID:
    """A new id of an event of that time."""
    return UUID(int=first_id(when).int | secrets.randbits(79))


def events_of(when: datetime, how_many: int = 3, **fields: Any) -> list[ViewEvent]:
    """One playback."""
    fields = {"playback_id": uuid4(), "at": when, **fields}
    return [an_event(event_id=at(when + timedelta(seconds=n)), **fields) for n in range(how_many)]


def scalar(engine: Engine, query: str, **values: object) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(query), values).scalar_one()


def stored(engine: Engine, table: str = "view_events") -> int:
    return int(scalar(engine, f"SELECT count(*) FROM {table}"))


def there(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return [one.name for one in listed(connection) if one.attached]


def ahead(engine: Engine, now: datetime) -> int:
    with engine.connect() as connection:
        return months_ahead(attached(listed(connection)), now)


def differences(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return playbacks_differ(connection)


def waiting(engine: Engine, table: str) -> bool:
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = to_regclass(:table)"
    return bool(scalar(engine, query, table=table))


class Writers:
    """Write batches without a pause, each over its own connection, until they are told to stop."""

    def __init__(self, url: str, pool: ThreadPoolExecutor, when: Callable[[], datetime]) -> None:
        self.stop = Event()
        self._when = when
        self._written: list[int] = [0, 0, 0]
        self._running = [pool.submit(self._write, url, n) for n in range(3)]

    def _write(self, url: str, writer: int) -> list[ViewEvent]:
        engine = connect(url, pool_size=1)
        events: list[ViewEvent] = []
        while not self.stop.is_set():
            batch = [an_event(event_id=at(self._when()), playback_id=UUID(int=n % 7)) for n in range(5)]
            assert write(engine, batch) == len(batch)
            events += batch
            self._written[writer] += 1
        engine.dispose()
        return events

    def pass_by(self, batches: int = 10) -> None:
        """Wait until each of them has written so many more."""
        goals = [done + batches for done in self._written]

        def done() -> bool:
            for one in self._running:
                if one.done():
                    one.result()
            return all(now >= goal for now, goal in zip(self._written, goals, strict=True))

        until(done, 20, what="the writers to go on")

    def events(self) -> list[ViewEvent]:
        self.stop.set()
        return [event for one in self._running for event in one.result(20)]


@contextmanager
def writers(url: str, pool: ThreadPoolExecutor, when: Callable[[], datetime]) -> Iterator[Writers]:
    writers = Writers(url, pool, when)
    try:
        writers.pass_by()
        yield writers
    finally:
        writers.stop.set()


def all_are_there_once(engine: Engine, events: Sequence[ViewEvent]) -> None:
    assert stored(engine) == len(events)
    ids = [event.event_id for event in events]
    assert scalar(engine, "SELECT count(*) FROM view_events WHERE event_id = ANY(:ids)", ids=ids) == len(events)
    assert differences(engine) == []


# -- the migration -----------------------------------------------------------------------------------------------------


def test_the_table_from_before_becomes_a_partition_as_it_is(url: str, engine: Engine) -> None:
    now = datetime.now(UTC)
    events = [*events_of(now), *events_of(now - timedelta(days=399))]
    write(engine, events)
    file = scalar(engine, "SELECT pg_relation_filenode('view_events')")
    upgrade(url)
    (before,) = [name for name in there(engine) if "before" in name]
    assert scalar(engine, "SELECT pg_relation_filenode(:table)", table=before) == file
    assert stored(engine, before) == len(events)
    assert write(engine, events) == 0
    all_are_there_once(engine, events)
    assert ahead(engine, now) == MONTHS_AHEAD
    upgrade(url)
    assert write(engine, [*events, *events_of(now + timedelta(hours=1))]) == 3


def test_ids_beyond_any_month_move_to_the_default_partition(url: str, engine: Engine) -> None:
    """Random ids, from before the streaming app refused them."""
    events = [*events_of(datetime.now(UTC)), an_event(event_id=UUID(int=2**128 - 1)), an_event(event_id=UUID(int=0))]
    write(engine, events)
    upgrade(url)
    assert stored(engine, DEFAULT) == 1
    assert write(engine, events) == 0
    all_are_there_once(engine, events)


def test_the_table_is_not_read_while_everybody_is_kept_out(url: str) -> None:
    """PostgreSQL says when it need not look: it has looked before whether all ids are below the bound."""
    said: list[str] = []

    def listen(connection: psycopg.Connection, _record: object) -> None:
        connection.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))

    with psycopg.connect(plain(url)) as connection:
        connection.execute(f"ALTER DATABASE {make_url(url).database} SET client_min_messages = debug1")
    event.listen(Engine, "connect", listen)
    try:
        upgrade(url)
    finally:
        event.remove(Engine, "connect", listen)
    implied = [line for line in said if "view_events_before" in line and "is implied by existing constraints" in line]
    assert len(implied) == 1


def test_one_that_was_broken_off_in_the_middle_is_run_again(url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        constraint = "CHECK (event_id < 'ffffffff-0000-0000-0000-000000000000') NOT VALID"
        connection.execute(text(f"ALTER TABLE view_events ADD CONSTRAINT view_events_before {constraint}"))
    upgrade(url)
    assert scalar(engine, "SELECT count(*) FROM pg_constraint WHERE conname = 'view_events_before'") == 0


def test_views_that_are_written_meanwhile_are_all_there(url: str, engine: Engine, pool: ThreadPoolExecutor) -> None:
    with writers(url, pool, lambda: datetime.now(UTC)) as writing:
        upgrade(url)
        writing.pass_by()
        command.downgrade(configuration(url), "0002")
        writing.pass_by()
        upgrade(url)
        writing.pass_by()
        events = writing.events()
    all_are_there_once(engine, events)


@pytest.mark.parametrize("beyond", [False, True], ids=["the check waits", "the change waits"])
def test_somebody_who_reads_for_long_keeps_no_writer_waiting(
    url: str, engine: Engine, pool: ThreadPoolExecutor, *, beyond: bool
) -> None:
    first = an_event(event_id=UUID(int=2**128 - 1)) if beyond else an_event()
    write(engine, [first])
    with writers(url, pool, lambda: datetime.now(UTC)) as writing, engine.connect() as reading:
        reading.execute(text("SELECT count(*) FROM view_events"))
        migrating = pool.submit(upgrade, url)
        until(lambda: waiting(engine, "view_events"), what="the migration to wait")
        for _ in range(3):
            writing.pass_by(5)
        assert not migrating.done()
        reading.rollback()
        migrating.result(30)
        events = writing.events()
    all_are_there_once(engine, [first, *events])


def test_one_migrator_at_a_time(url: str, engine: Engine, pool: ThreadPoolExecutor) -> None:
    with engine.connect() as another:
        another.execute(text(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})"))
        migrating = pool.submit(upgrade, url)
        advisory = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        until(lambda: scalar(engine, advisory), what="it to wait")
        assert there(engine) == []
    migrating.result(20)
    assert len(there(engine)) > MONTHS_AHEAD


def test_two_that_start_at_once_do_not_disturb_each_other(url: str, engine: Engine, pool: ThreadPoolExecutor) -> None:
    start = [sys.executable, "-m", "history_worker.store.migrations"]
    starting = [pool.submit(subprocess.run, start, env=environment(DATABASE_URL=url), timeout=30) for _ in range(3)]
    assert [one.result().returncode for one in starting] == [0, 0, 0]
    assert ahead(engine, datetime.now(UTC)) == MONTHS_AHEAD


def test_the_way_back_keeps_every_row(url: str, engine: Engine) -> None:
    write(engine, events_of(datetime.now(UTC)))
    upgrade(url)
    events = [*events_of(datetime.now(UTC)), *events_of(datetime.now(UTC) + timedelta(days=80))]
    write(engine, events)
    command.downgrade(configuration(url), "0002")
    assert scalar(engine, "SELECT relkind::text FROM pg_class WHERE oid = 'view_events'::regclass") == "r"
    assert stored(engine) == 9
    assert write(engine, events) == 0
    assert there(engine) == []
    upgrade(url)
    assert stored(engine) == 9


def test_the_tables_are_what_the_code_says(url: str) -> None:
    upgrade(url)
    engine = create_engine(url)

    def ours(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or name in metadata.tables

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": ours, "compare_type": True})
        assert compare_metadata(context, metadata) == []
        keys = "SELECT relkind::text, pg_get_partkeydef(oid) FROM pg_class WHERE oid = 'view_events'::regclass"
        assert connection.execute(text(keys)).one() == (
            "p",
            metadata.tables["view_events"].dialect_options["postgresql"]["partition_by"],
        )
    engine.dispose()


# -- rights ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def roles(url: str) -> Callable[[str], str]:
    password = "a-password"
    names = ("postgres", "postgres_migrator", "postgres_writer", "postgres_reader", "postgres_eraser")
    passwords = {f"{name}_password": password for name in names}
    create(RolesSettings(admin_database_url=plain(url), **passwords))  # type: ignore[arg-type]

    def as_role(role: str) -> str:
        return make_url(url).set(username=role, password=password).render_as_string(hide_password=False)

    migrator = create_engine(as_role(MIGRATOR), poolclass=NullPool)
    with migrator.begin() as connection:
        grant(connection)
    return as_role


@contextmanager
def engines(roles: Callable[[str], str], *names: str) -> Iterator[list[Engine]]:
    found = [connect(roles(name), pool_size=2) for name in names]
    try:
        yield found
    finally:
        for engine in found:
            engine.dispose()


def test_the_rights_of_before_hold_from_the_first_moment_on(roles: Callable[[str], str]) -> None:
    """Between the migration and its grants, which come later."""
    command.upgrade(configuration(roles(MIGRATOR)), "head")
    event = an_event()
    with engines(roles, WRITER, READER, ERASER) as (writer, reader, eraser):
        assert write(writer, [event]) == 1
        assert receipts(reader, [event.event_id])["stored"] == 1
        assert erase(eraser, event.viewer_id).events == 1


def test_services_work_by_way_of_the_table_and_cannot_touch_its_partitions(roles: Callable[[str], str]) -> None:
    upgrade(roles(MIGRATOR))
    now = datetime.now(UTC)
    events = [*events_of(now), *events_of(now + timedelta(days=100))]
    with engines(roles, MIGRATOR, WRITER, READER, ERASER) as (migrator, writer, reader, eraser):
        assert write(writer, events) == len(events)
        assert receipts(reader, [event.event_id for event in events])["stored"] == len(events)
        for engine in (writer, eraser):
            with pytest.raises(DBAPIError, match=r"permission denied|must be owner"):
                make(engine, now, MONTHS_AHEAD + 1)
            with pytest.raises(DBAPIError, match=r"permission denied|must be owner"):
                detach(engine, LATER)
        with engine.connect() as connection:
            for one in listed(connection):
                query = text(f"SELECT has_table_privilege('{READER}', '{one.name}', 'SELECT')")
                assert connection.execute(query).scalar_one() is False, one.name
        assert len(make(migrator, now, MONTHS_AHEAD + 1)) == 1
        assert erase(eraser, "alice").events == len(events)
        assert len(detach(migrator, LATER, drop=True)) > 1
        assert prune(migrator, LATER).erased_ids == len(events)


# -- making ------------------------------------------------------------------------------------------------------------


def test_an_id_is_stored_once_wherever_its_row_lies(url: str, engine: Engine) -> None:
    upgrade(url)
    now = datetime.now(UTC)
    events = [event for n in range(20) for event in events_of(now + timedelta(days=30 * n), 1)]
    assert write(engine, events) == len(events)
    assert stored(engine, DEFAULT) > 0
    assert write(engine, events) == 0
    make(engine, now, 24)
    assert stored(engine, DEFAULT) == 0
    assert write(engine, events) == 0
    all_are_there_once(engine, events)


def test_views_that_came_without_a_partition_move_into_theirs(url: str, engine: Engine) -> None:
    upgrade(url)
    month = Month.of(LATER)
    events = events_of(LATER)
    write(engine, events)
    assert stored(engine, DEFAULT) == 3
    made = make(engine, LATER)
    assert made[month.partition] == 3
    assert sum(made.values()) == 3
    assert (stored(engine, month.partition), stored(engine, DEFAULT)) == (3, 0)
    assert make(engine, LATER) == {}
    all_are_there_once(engine, events)


def test_a_row_from_before_a_constraint_does_not_keep_its_month_from_being_made(url: str, engine: Engine) -> None:
    command.upgrade(configuration(url), "0003")
    (event,) = events_of(datetime.now(UTC) + timedelta(days=200), 1)
    with engine.begin() as connection:
        connection.execute(
            text("""
            INSERT INTO view_events (event_id, viewer_id, video_id, playback_id, kind, position_s, at, received_at)
            VALUES (:id, 'mallory', 'clip-1', :id, 'progress', -5, now(), now())
            """),
            {"id": event.event_id},
        )
    assert stored(engine, DEFAULT) == 1
    upgrade(url)
    upgrade(url)
    assert stored(engine, DEFAULT) == 0
    assert stored(engine) == 1
    with pytest.raises(DBAPIError, match="view_events_numbers"):
        write(engine, [an_event(event_id=at(datetime.now(UTC) + timedelta(days=200)), position_s=-5.0)])


def test_two_who_make_at_once_make_each_once(url: str, engine: Engine, pool: ThreadPoolExecutor) -> None:
    upgrade(url)
    making = [pool.submit(make, engine, LATER) for _ in range(4)]
    made = [name for one in making for name in one.result(30)]
    assert len(made) == len(set(made)) > MONTHS_AHEAD
    assert ahead(engine, LATER) == MONTHS_AHEAD


def test_views_that_are_written_while_months_are_made_and_detached_are_all_there(
    url: str, engine: Engine, pool: ThreadPoolExecutor
) -> None:
    upgrade(url)
    spread = count()

    def when() -> datetime:
        """All over the months that are still to be made: in the default partition, until they are."""
        return LATER + timedelta(days=next(spread) % 300)

    with writers(url, pool, when) as writing:
        assert sum(make(engine, LATER).values()) > 0
        writing.pass_by()
        assert len(detach(engine, LATER, drop=True)) > 1
        assert prune(engine, LATER).playbacks == 0
        writing.pass_by()
        events = writing.events()
    assert stored(engine, DEFAULT) == 0
    all_are_there_once(engine, events)


def test_nobody_is_on_the_way_into_the_default_partition_while_a_month_is_made(
    url: str, engine: Engine, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was sent there, and arrived after the month was made, would be refused for good."""
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT_MS", 20_000)
    upgrade(url)
    make(engine, LATER, 0)
    next_month = Month.of(LATER).plus(1)
    with engine.connect() as reading:
        reading.execute(text(f"SELECT count(*) FROM {DEFAULT}"))
        making = pool.submit(make, engine, LATER, 1)
        until(lambda: waiting(engine, DEFAULT), what="the month to be under way")
        events = events_of(datetime(next_month.year, next_month.month, 2, tzinfo=UTC))
        writing = pool.submit(write, engine, events)
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        until(lambda: scalar(engine, query) == 2, what="the writer to wait")
        reading.rollback()
    making.result(20)
    assert writing.result(20) == 3
    all_are_there_once(engine, events)


def test_a_backup_that_reads_for_long_keeps_no_writer_waiting_and_no_service_from_starting(
    url: str, engine: Engine, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "PATIENCE_S", 2)
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT_MS", 100)
    upgrade(url)
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {Month.of(datetime.now(UTC)).plus(MONTHS_AHEAD).partition}"))
    with engine.connect() as reading, writers(url, pool, lambda: datetime.now(UTC)) as writing:
        reading.execute(text("SELECT count(*) FROM view_events"))
        starting = pool.submit(upgrade, url)
        for _ in range(3):
            writing.pass_by(5)
        starting.result(20)
        assert ahead(engine, datetime.now(UTC)) == MONTHS_AHEAD - 1
        with pytest.raises(DBAPIError, match="lock timeout"):
            make(engine, datetime.now(UTC))
        events = writing.events()
    make(engine, datetime.now(UTC))
    assert ahead(engine, datetime.now(UTC)) == MONTHS_AHEAD
    all_are_there_once(engine, events)


# -- detaching ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def aged(url: str, engine: Engine) -> tuple[datetime, list[ViewEvent], list[ViewEvent]]:
    """A history with views in two months, of which one is just past at the time given: `(time, past, kept)`."""
    upgrade(url)
    now = datetime.now(UTC)
    make(engine, now)
    month = Month.of(now).plus(4)
    begin = datetime(month.year, month.month, 1, tzinfo=UTC)
    end = begin + timedelta(days=32)
    end = end.replace(day=1)
    long_gone, just_kept = events_of(begin), events_of(end)
    write(engine, [*long_gone, *just_kept])
    return end + (now - oldest_kept(now)), long_gone, just_kept


def test_a_month_is_detached_once_its_last_id_is_past_and_not_before(
    engine: Engine, aged: tuple[datetime, list[ViewEvent], list[ViewEvent]]
) -> None:
    now, gone, kept = aged
    name = Month.of(gone[0].at).partition
    assert name not in detach(engine, now - timedelta(milliseconds=1))
    assert detach(engine, now) == [name]
    assert detach(engine, now) == []
    assert stored(engine, name) == len(gone)
    assert name not in there(engine)
    assert name in [one.name for one in past(engine, now)]
    assert name in detach(engine, now, drop=True)
    assert past(engine, now) == []
    assert prune(engine, now).playbacks == 1
    all_are_there_once(engine, kept)


def test_playbacks_go_with_the_last_of_their_views(
    engine: Engine, aged: tuple[datetime, list[ViewEvent], list[ViewEvent]]
) -> None:
    now, gone, kept = aged
    before, after = gone[0].at, kept[0].at
    minute = timedelta(minutes=1)
    straddles, imported = uuid4(), uuid4()
    write(engine, [*events_of(before, playback_id=straddles), *events_of(after, playback_id=straddles)])
    # The later view by its time has the older id: its playback has a view that is kept all the same.
    write(engine, [an_event(playback_id=imported, event_id=at(before + minute), at=after)])
    write(engine, [an_event(playback_id=imported, event_id=at(after + minute), at=before)])
    detach(engine, now)
    assert prune(engine, now).playbacks == 1
    assert prune(engine, now).playbacks == 0
    items = {item["playback_id"] for item in history(engine, "alice")["items"]}
    assert items == {kept[0].playback_id, straddles, imported}
    # What straddles keeps what it has counted. Nothing else differs from the log, and nothing has two countings.
    assert {line.split()[1] for line in differences(engine)} == {str(straddles), str(imported)}


def test_a_view_that_comes_while_its_playback_is_pruned_keeps_it(
    engine: Engine, aged: tuple[datetime, list[ViewEvent], list[ViewEvent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, gone, kept = aged
    late = an_event(playback_id=gone[0].playback_id, event_id=at(kept[0].at), at=gone[0].at)
    detach(engine, now)
    delete = partitions._rows  # noqa: SLF001

    def late_one_first(*arguments: Any) -> int:
        write(engine, [late])
        return delete(*arguments)

    monkeypatch.setattr(partitions, "_rows", late_one_first)
    assert prune(engine, now).playbacks == 0
    assert gone[0].playback_id in {item["playback_id"] for item in history(engine, "alice")["items"]}


def test_erased_ids_are_forgotten_once_workers_refuse_them_and_not_before(
    engine: Engine, aged: tuple[datetime, list[ViewEvent], list[ViewEvent]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "CHUNK", 2)
    now, gone, kept = aged
    assert erase(engine, "alice").events == len([*gone, *kept])
    assert prune(engine, now).erased_ids == 0  # nothing was detached yet
    detach(engine, now)
    assert prune(engine, now).erased_ids == len(gone)
    assert stored(engine, "erased_events") == len(kept)
    assert write(engine, kept) == 0


def test_what_somebody_detached_too_early_takes_no_erased_id_with_it(url: str, engine: Engine) -> None:
    upgrade(url)
    now = datetime.now(UTC)
    events = events_of(now)
    write(engine, events)
    erase(engine, "alice")
    (before,) = [name for name in there(engine) if "before" in name]
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE view_events DETACH PARTITION {before}"))
    assert prune(engine, now).erased_ids == 0
    assert write(engine, events) == 0


def test_a_clock_that_runs_ahead_detaches_nothing(engine: Engine, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Ahead:
            return cls(2100, 1, 1, tzinfo=tz)

    upgrade(url)
    monkeypatch.setattr(partitions, "datetime", Ahead)
    assert detach(engine, clock(engine)) == []


# -- the command -------------------------------------------------------------------------------------------------------


def flixtrail(url: str, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [*program(), "partitions", *arguments],
        env=environment(DATABASE_URL=url),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command_shows_makes_and_detaches(url: str, engine: Engine) -> None:
    upgrade(url)
    month = Month.of(datetime.now(UTC)).plus(14)
    write(engine, [an_event(event_id=UUID(int=month.begin.int + n)) for n in range(2)])
    said = json.loads(flixtrail(url, "--json"))
    assert {one["state"] for one in said} == {"current", "ahead", "default"}
    assert said[0]["from"] is None
    assert said[-1]["name"] == DEFAULT
    assert f"made {month.partition}, and moved 2 views into it" in flixtrail(url, "make", "--months", "15")
    assert "nothing is missing" in flixtrail(url, "make")
    assert re.search(rf"{month.partition} +{month.year}-{month.month:02}-01 .* ahead", flixtrail(url))
    assert "nothing is past retention" in flixtrail(url, "detach")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE view_events_2020_02 (LIKE view_events INCLUDING ALL)"))
    assert "2020-02-01" in flixtrail(url)
    assert "add --yes" in flixtrail(url, "detach", "--drop", status=2)
    assert "dropped view_events_2020_02" in flixtrail(url, "detach", "--drop", "--yes")


def test_a_database_without_the_table_is_said(url: str) -> None:
    with psycopg.connect(plain(url)) as connection:
        connection.execute("DROP TABLE view_events")
    assert "view_events" in flixtrail(url, "make", status=1)
