"""Metrics do not lie on a disk that may be full: there, a new process would die of its first one."""

from __future__ import annotations

from pathlib import Path

import pytest

from streaming_app import metrics_files


def test_they_lie_in_memory_one_folder_an_app(tmp_path: Path) -> None:
    one, other = metrics_files.folder_for(tmp_path / "one"), metrics_files.folder_for(tmp_path / "other")
    assert one != other
    assert one == metrics_files.folder_for(tmp_path / "one")
    assert one.is_relative_to(metrics_files.IN_MEMORY)


def test_where_there_is_no_such_memory_they_lie_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_files, "IN_MEMORY", tmp_path / "missing")
    assert metrics_files.folder_for(tmp_path) == tmp_path / "metrics"
