"""A lock excludes other processes, ends with them, and is never one on a deleted file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.file_lock import lock, try_lock

LOCKING = "import sys, time\nfrom pathlib import Path\nfrom service.file_lock import try_lock\n"
LOCKING += "print(try_lock(Path(sys.argv[1])) is not None, flush=True)\ntime.sleep(60)"


@pytest.fixture(params=["file", "folder"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    found = tmp_path / "locked"
    if request.param == "folder":
        found.mkdir()
    return found


def test_a_second_lock_is_refused_until_the_first_one_is_closed(path: Path) -> None:
    first = try_lock(path)
    assert first is not None
    assert try_lock(path) is None
    os.close(first)
    second = try_lock(path)
    assert second is not None
    os.close(second)


def test_kill_9_releases_the_lock(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", LOCKING, str(path)], stdout=-1, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "True\n"
        assert try_lock(path) is None
        process.kill()
    found = try_lock(path)
    assert found is not None
    os.close(found)


def test_two_shared_locks_keep_an_exclusive_one_out(path: Path) -> None:
    shared = [lock(path, shared=True), lock(path, shared=True)]
    assert try_lock(path) is None
    for descriptor in shared:
        os.close(descriptor)
    os.close(lock(path))


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
