"""Metrics do not lie on a disk that may be full: there, a new process would die of its first one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import values

from service import metrics, metrics_files

#: A service that makes its folder, says where, and waits to be killed.
SERVICE = """
import os, sys
from service import metrics_files
metrics_files.make()
print(os.environ[metrics_files.VARIABLE], flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A place of its own; and afterwards the variable, and prometheus-client, as they were."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setattr(metrics_files, "IN_MEMORY", tmp_path)
    monkeypatch.setenv(metrics_files.VARIABLE, "")
    yield
    metrics_files.remove()


def made() -> Path:
    metrics_files.make()
    return Path(os.environ[metrics_files.VARIABLE])


def test_they_lie_in_memory_a_folder_a_service(tmp_path: Path) -> None:
    one, other = made(), made()
    assert one != other
    assert one.parent == other.parent == tmp_path
    assert one.stat().st_mode & 0o777 == 0o700


def test_where_there_is_no_such_memory_they_lie_among_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_files, "IN_MEMORY", tmp_path / "missing")
    assert metrics_files.parent_folder().is_dir()


def test_what_a_killed_service_left_is_swept_and_what_a_living_one_has_is_not() -> None:
    with subprocess.Popen([sys.executable, "-c", SERVICE], stdin=-1, stdout=-1, text=True) as service:
        assert service.stdout
        folder = Path(service.stdout.readline().strip())
        assert folder.parent == Path("/dev/shm")
        metrics_files.IN_MEMORY = folder.parent
        metrics_files.remove_abandoned()
        assert folder.is_dir()
        service.kill()
        service.wait()
        metrics_files.remove_abandoned()
        assert not folder.exists()


def test_the_folder_is_held_by_the_processes_that_were_forked_too() -> None:
    script = SERVICE.replace("print", "os.fork() and os.wait()\nprint")
    with subprocess.Popen([sys.executable, "-c", script], stdin=-1, stdout=-1, text=True) as service:
        assert service.stdout
        assert service.stdin
        folder = Path(service.stdout.readline().strip())
        service.kill()
        service.wait()
        metrics_files.IN_MEMORY = folder.parent
        metrics_files.remove_abandoned()
        assert folder.is_dir(), "an orphan writes there still"
        service.stdin.close()
        service.stdout.read()  # until it is gone
        metrics_files.remove_abandoned()
        assert not folder.exists()


def test_gauges_of_processes_that_are_gone_are_forgotten_and_counters_are_not() -> None:
    folder = made()
    gone = subprocess.Popen(["true"])
    gone.wait()
    for pid in (gone.pid, os.getpid()):
        for kind in ("gauge_livemin", "counter", "histogram"):
            (folder / f"{kind}_{pid}.db").touch()
    metrics.registry()  # at each look
    assert not (folder / f"gauge_livemin_{gone.pid}.db").exists()
    assert len(list(folder.iterdir())) == 5
