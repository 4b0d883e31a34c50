"""A lock excludes other processes, ends with them, and is never one on a deleted file."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.file_lock import FILE, FOLDER, lock, try_lock

LOCKING = "import sys, time\nfrom pathlib import Path\nfrom service.file_lock import try_lock\n"
LOCKING += "print(try_lock(Path(sys.argv[1]), int(sys.argv[2])) is not None, flush=True)\ntime.sleep(60)"

Place = tuple[Path, int]


@pytest.fixture(params=["file", "folder"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    path = tmp_path / "locked"
    if request.param == "file":
        return path, FILE
    path.mkdir()
    return path, FOLDER


def test_a_second_lock_is_refused_until_the_first_one_is_closed(place: Place) -> None:
    first = try_lock(*place)
    assert first is not None
    assert try_lock(*place) is None
    os.close(first)
    second = try_lock(*place)
    assert second is not None
    os.close(second)


def test_kill_9_releases_the_lock(place: Place) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOCKING, str(place[0]), str(place[1])], stdout=-1, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "True\n"
        assert try_lock(*place) is None
        process.kill()
    found = try_lock(*place)
    assert found is not None
    os.close(found)


def test_two_shared_locks_keep_an_exclusive_one_out(place: Place) -> None:
    shared = [lock(*place, shared=True), lock(*place, shared=True)]
    assert try_lock(*place) is None
    for descriptor in shared:
        os.close(descriptor)
    os.close(lock(*place))


def test_a_folder_is_never_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        try_lock(tmp_path / "missing", FOLDER)
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_locks(descriptor: int, _operation: int) -> None:
        opened.append(descriptor)
        raise OSError(errno.ENOLCK, "no locks here")

    opened: list[int] = []
    monkeypatch.setattr(fcntl, "flock", without_locks)
    for take in (try_lock, lock):
        with pytest.raises(OSError, match="no locks here"):
            take(tmp_path / "locked")
    for descriptor in opened:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_a_lock_on_a_file_that_was_just_replaced_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "locked"
    opened = os.open

    def replaced_meanwhile(*arguments: int) -> int:
        descriptor = opened(*arguments)  # type: ignore[arg-type]
        path.unlink()
        path.write_text("")
        return descriptor

    monkeypatch.setattr(os, "open", replaced_meanwhile)
    assert try_lock(path) is None


def test_a_new_lock_file_is_for_its_owner_only(tmp_path: Path) -> None:
    os.close(lock(tmp_path / "locked"))
    assert (tmp_path / "locked").stat().st_mode & 0o777 == 0o600
