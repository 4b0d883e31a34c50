"""Looking on while a run goes on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from proof.chaos import watching
from proof.chaos.watching import Redeliveries, Sampler
from tests.waiting import until

LINE = b"committed events=1 stored=0 redelivered=True\n"


def test_redeliveries_are_counted_once_also_across_rotated_logs(tmp_path: Path) -> None:
    log, redeliveries = tmp_path / "history-worker-1.log", Redeliveries(tmp_path)
    log.write_bytes(LINE + b"committed events=1 stored=1 redelivered=False\n")
    assert redeliveries.count() == 1
    with log.open("ab") as file:
        file.write(LINE)
    log.rename(tmp_path / "history-worker-1.log.1")
    log.write_bytes(LINE)
    assert redeliveries.count() == 3
    assert redeliveries.count() == 3


def test_a_line_that_is_half_written_is_counted_when_it_is_whole(tmp_path: Path) -> None:
    log, redeliveries = tmp_path / "history-worker-1.log", Redeliveries(tmp_path)
    log.write_bytes(LINE + LINE[:-3])
    assert redeliveries.count() == 1
    log.write_bytes(LINE + LINE)
    assert redeliveries.count() == 2


def test_a_question_that_hangs_or_fails_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SAMPLE_INTERVAL_S", 0.01)
    released = threading.Event()

    def fails() -> float:
        raise ConnectionError

    with Sampler({"good": lambda: 3.0, "hangs": lambda: float(released.wait()), "fails": fails}) as watch:
        until(lambda: watch.now()["good"] == 3.0, what="the answer")
        until(lambda: len(watch.samples) > 2, what="samples")
    released.set()
    assert watch.samples[-1].keys() == {"at_s", "good", "hangs", "fails"}
    assert watch.samples[-1]["hangs"] is None
    assert watch.samples[-1]["fails"] is None
