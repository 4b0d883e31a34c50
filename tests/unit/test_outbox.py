"""The outbox on a real disk: what is stored is there, oldest first, whoever dies."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from service import file_lock
from streaming_app.recording.errors import NotAccepted
from streaming_app.recording.outbox import Outbox, waiting_in
from streaming_app.recording.outbox_adoption import ADOPT_EVERY_S
from streaming_app.recording.outbox_writer import MEASURE_EVERY_S
from tests.demo import HARD_NAME
from tests.fakes import an_event, fill, ids
from view_events.event import ViewEvent

MAX_BYTES = 4 * 1024 * 1024
ROOT = Path(__file__).parents[2]


class Clock:
    """Time as a test wants it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(tmp_path: Path, clock: Clock) -> Iterator[Outbox]:
    box = Outbox(tmp_path, MAX_BYTES, clock=clock)
    box.open()
    yield box
    box.close()


def store(outbox: Outbox, events: Sequence[ViewEvent]) -> None:
    outbox.put(events).result(5)


def emptied(outbox: Outbox, at_a_time: int = 500) -> list[ViewEvent]:
    """Everything that it gives, in order."""
    events: list[ViewEvent] = []
    while message := outbox.oldest(at_a_time):
        events += message.events
        outbox.done(message)
    return events


def test_it_gives_back_what_it_got_oldest_first(outbox: Outbox) -> None:
    events = [an_event(position_s=float(number), played_from_s=None) for number in range(25)]
    for number in range(0, 25, 5):
        store(outbox, events[number : number + 5])
    assert outbox.events == 25
    assert emptied(outbox, at_a_time=12) == events
    assert outbox.events == 0


def test_a_message_never_splits_a_request_and_stays_until_it_is_done(outbox: Outbox) -> None:
    for size in (300, 300, 1000, 1):
        store(outbox, [an_event() for _ in range(size)])
    first = outbox.oldest(500)
    again = outbox.oldest(500)
    assert first
    assert again
    assert ids(first.events) == ids(again.events)
    assert len(first.events) == 300
    outbox.done(first)
    sizes = []
    while message := outbox.oldest(500):
        sizes.append(len(message.events))
        outbox.done(message)
    assert sizes == [300, 1000, 1]


def test_many_threads_share_commits(outbox: Outbox) -> None:
    events = [an_event() for _ in range(400)]
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda event: store(outbox, [event]), events))
    assert sorted(ids(emptied(outbox))) == sorted(ids(events))


def test_every_commit_has_reached_the_disk_before_it_is_told(outbox: Outbox) -> None:
    store(outbox, [an_event()])
    own = outbox._writer.file  # noqa: SLF001 (what no test could see from outside but by pulling the plug)
    assert own
    assert own._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # noqa: SLF001 (2: FULL)
    assert own._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)  # noqa: SLF001


def test_a_full_outbox_refuses_and_takes_again_when_there_is_room(tmp_path: Path) -> None:
    box = Outbox(tmp_path, 64 * 1024)
    box.open()
    stored = fill(lambda: store(box, [an_event()]))
    assert not box.usable
    assert box.events == stored > 50
    assert (tmp_path / next(tmp_path.glob("*.sqlite")).name).stat().st_size <= 64 * 1024
    assert len(emptied(box)) == stored
    store(box, [an_event()])
    assert box.usable
    box.close()


def test_a_folder_that_cannot_be_written_refuses_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "folder", MAX_BYTES)
    box.open()
    (tmp_path / "folder").rmdir()
    with pytest.raises(NotAccepted):
        store(box, [an_event()])
    (tmp_path / "folder").mkdir()
    store(box, [an_event()])
    assert box.usable
    box.close()


def test_an_empty_outbox_leaves_no_file_when_it_closes_and_a_full_one_does(tmp_path: Path) -> None:
    empty, kept = Outbox(tmp_path / "a", MAX_BYTES), Outbox(tmp_path / "b", MAX_BYTES)
    for box in (empty, kept):
        box.open()
        store(box, [an_event()])
    emptied(empty)
    for box in (empty, kept):
        box.close()
    assert not list((tmp_path / "a").iterdir())
    assert waiting_in(tmp_path / "b") == 1


def test_closing_commits_what_waits_and_then_refuses(tmp_path: Path) -> None:
    box = Outbox(tmp_path, MAX_BYTES)
    box.open()
    futures = [box.put([an_event()]) for _ in range(50)]
    box.close()
    assert all(future.exception() is None for future in futures)
    assert waiting_in(tmp_path) == 50
    with pytest.raises(NotAccepted):
        store(box, [an_event()])


#: Stores three events, says their ids, and waits to be killed.
OWNER = """
import sys, time
from pathlib import Path
from streaming_app.recording.outbox import Outbox
from tests.fakes import an_event, ids
from service.logs import LogSettings, configure
configure(LogSettings())  # to standard error
box = Outbox(Path(sys.argv[1]), 4 * 1024 * 1024)
box.open()
events = [an_event() for _ in range(3)]
for event in events:
    box.put([event]).result(5)
print(*ids(events), flush=True)
time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Another process with three events in its outbox."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout
    yield process, process.stdout.readline().split()
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_file_of_a_process_that_was_killed_is_adopted_and_older_than_ours(
    outbox: Outbox, clock: Clock, owner: tuple[subprocess.Popen[str], list[str]], tmp_path: Path
) -> None:
    process, theirs = owner
    process.send_signal(signal.SIGKILL)
    process.wait()
    ours = an_event()
    store(outbox, [ours])
    outbox.adopt_and_sweep()
    assert outbox.events == 4
    assert ids(emptied(outbox)) == [*theirs, str(ours.event_id)]
    clock.now_s += ADOPT_EVERY_S
    outbox.adopt_and_sweep()
    assert len(list(tmp_path.glob("*.lock"))) == 1, "the adopted file was not removed"


def test_the_file_of_a_process_that_lives_is_left_alone_even_when_it_is_stopped(
    outbox: Outbox, clock: Clock, owner: tuple[subprocess.Popen[str], list[str]]
) -> None:
    process, theirs = owner
    outbox.adopt_and_sweep()
    process.send_signal(signal.SIGSTOP)
    clock.now_s += ADOPT_EVERY_S
    outbox.adopt_and_sweep()
    assert outbox.events == 0
    process.send_signal(signal.SIGKILL)
    process.wait()
    outbox.adopt_and_sweep()
    assert outbox.events == 0, "it searched again too early"
    clock.now_s += ADOPT_EVERY_S
    outbox.adopt_and_sweep()
    assert ids(emptied(outbox)) == theirs


def test_one_of_many_adopts(tmp_path: Path, owner: tuple[subprocess.Popen[str], list[str]]) -> None:
    process, theirs = owner
    process.kill()
    process.wait()
    boxes = [Outbox(tmp_path, MAX_BYTES) for _ in range(8)]
    for box in boxes:
        box.open()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(Outbox.adopt_and_sweep, boxes))
    assert sorted(box.events for box in boxes) == [0] * 7 + [3]
    assert [event_id for box in boxes for event_id in ids(emptied(box))] == theirs
    for box in boxes:
        box.close()
    assert not list(tmp_path.iterdir())


def test_a_lock_without_a_file_is_cleared_away(outbox: Outbox, tmp_path: Path) -> None:
    (tmp_path / "0190.lock").touch()  # killed between the two
    outbox.adopt_and_sweep()
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_being_made_is_not_adopted_by_its_own_process(outbox: Outbox, tmp_path: Path) -> None:
    """The lock file appears while the folder is listed, a moment before it is locked."""
    lock = tmp_path / "0190.lock"

    class Listed:
        def glob(self, _pattern: str) -> list[Path]:
            outbox._writer.path = lock.with_suffix(".sqlite")  # noqa: SLF001 (as the writer does)
            lock.touch()
            return [lock]

    outbox._adoption._folder = Listed()  # type: ignore[assignment]  # noqa: SLF001
    outbox.adopt_and_sweep()
    assert lock.exists()


def test_a_file_that_another_process_adopts_while_it_is_made_is_made_again(
    outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Outbox(tmp_path, MAX_BYTES)
    try_lock = file_lock.try_lock
    late: list[Path] = []

    def acquire_too_late(path: Path) -> int | None:
        """The first time, the other process locks the file first. It finds no events and removes the file."""
        if late:
            return try_lock(path)
        late.append(path)
        path.touch()
        other.adopt_and_sweep()
        assert not path.exists()
        return None

    monkeypatch.setattr(file_lock, "try_lock", acquire_too_late)
    event = an_event()
    store(outbox, [event])
    assert emptied(outbox) == [event]


def test_a_broken_file_and_one_of_another_version_are_left_for_somebody_to_look_at(
    outbox: Outbox, clock: Clock, tmp_path: Path
) -> None:
    (tmp_path / "1.lock").touch()
    (tmp_path / "1.sqlite").write_bytes(b"no database" * 1000)
    (tmp_path / "2.lock").touch()
    with sqlite3.connect(tmp_path / "2.sqlite") as connection:
        connection.executescript("CREATE TABLE requests (other); PRAGMA user_version = 99")
    connection.close()
    for _ in range(3):
        outbox.adopt_and_sweep()
        clock.now_s += ADOPT_EVERY_S
    assert outbox.events == 0
    assert {path.name for path in tmp_path.iterdir()} >= {"1.lock", "1.sqlite", "2.lock", "2.sqlite"}
    store(outbox, [an_event()])
    assert len(emptied(outbox)) == 1


def test_a_deletion_that_is_lost_with_the_process_sends_the_same_ids_again(tmp_path: Path) -> None:
    first, second = Outbox(tmp_path, MAX_BYTES), Outbox(tmp_path, MAX_BYTES)
    first.open()
    event = an_event()
    store(first, [event])
    assert first.oldest(500)  # sent, and never marked as done
    first.close()
    second.open()
    second.adopt_and_sweep()
    assert ids(emptied(second)) == ids([event])
    second.close()


def test_a_disk_that_takes_no_deletions_gives_nothing_twice_and_is_cleared_later(
    outbox: Outbox, clock: Clock, tmp_path: Path
) -> None:
    events = [an_event() for _ in range(3)]
    for event in events:
        store(outbox, [event])
    with closing(sqlite3.connect(next(tmp_path.glob("*.sqlite")))) as other:
        other.executescript("CREATE TRIGGER full BEFORE DELETE ON requests BEGIN SELECT raise(FAIL, 'disk'); END")
        assert emptied(outbox, at_a_time=1) == events
        assert waiting_in(tmp_path) == len(events)
        other.execute("DROP TRIGGER full")
        other.commit()
    clock.now_s += ADOPT_EVERY_S
    outbox.adopt_and_sweep()
    assert waiting_in(tmp_path) == 0


def test_a_row_that_cannot_be_read_holds_up_nobody_and_is_kept(outbox: Outbox, tmp_path: Path) -> None:
    events = [an_event() for _ in range(3)]
    for event in events:
        store(outbox, [event])
    path = next(tmp_path.glob("*.sqlite"))
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE requests SET body = '{}' WHERE number = 2")
        other.commit()
    assert emptied(outbox) == [events[0], events[2]]
    assert outbox.events == 0
    outbox.close()
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT body FROM unreadable").fetchall() == [("{}",)]


def test_a_file_that_is_damaged_holds_up_nobody_and_is_kept(outbox: Outbox, tmp_path: Path) -> None:
    store(outbox, [an_event() for _ in range(500)])
    path = next(tmp_path.glob("*.sqlite"))
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damaged = bytearray(path.read_bytes())
    damaged[8 * 4096 :] = b"\xff" * (len(damaged) - 8 * 4096)
    path.write_bytes(damaged)
    assert outbox.oldest(500) is None
    event = an_event()
    store(outbox, [event])
    assert emptied(outbox) == [event]
    outbox.close()
    assert path.exists()


def test_the_limit_is_for_all_files_of_the_folder_together(tmp_path: Path, clock: Clock) -> None:
    first, second = Outbox(tmp_path, 512 * 1024, clock=clock), Outbox(tmp_path, 512 * 1024, clock=clock)
    for box in (first, second):
        box.open()
    batch = [an_event() for _ in range(100)]
    stored = fill(lambda: store(first, batch))
    assert stored > 5
    assert fill(lambda: store(second, batch)) == 0
    emptied(first)
    first.close()
    clock.now_s += MEASURE_EVERY_S
    assert fill(lambda: store(second, batch)) == stored
    second.close()


def test_whether_a_file_may_go_is_asked_of_the_file_and_not_of_a_counter(outbox: Outbox, tmp_path: Path) -> None:
    event = an_event()
    store(outbox, [event])
    next(iter(outbox._files())).sent += 1  # noqa: SLF001 (as if the two counters had run apart)
    assert outbox.events == 0
    outbox.close()
    assert waiting_in(tmp_path) == 1


def test_what_was_given_up_before_its_commit_is_not_stored(tmp_path: Path) -> None:
    box = Outbox(tmp_path, MAX_BYTES)
    (given_up, kept) = box.put([an_event()]), box.put([an_event()])  # nobody commits yet
    assert given_up.cancel()
    box.open()
    kept.result(5)
    assert box.events == 1
    box.close()


def test_an_empty_file_gives_its_room_back(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "large", 64 * 1024 * 1024)
    box.open()
    for _ in range(25):
        store(box, [an_event() for _ in range(1000)])
    path = next((tmp_path / "large").glob("*.sqlite"))
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size > 5 * 1024 * 1024
    emptied(box)
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size < 100 * 1024
    box.close()


def test_what_waits_is_counted_also_below_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    """`#`, `%` and `?` have a meaning in the address by which SQLite opens a file for reading only."""
    outbox = Outbox(tmp_path / f"{HARD_NAME} ?", max_bytes=16 * 1024 * 1024)
    outbox.open()
    outbox.put([an_event()]).result(timeout=5)
    assert waiting_in(tmp_path / f"{HARD_NAME} ?") == 1
    outbox.close()
