"""Metrics: their names hold, and their page says what the code says."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from safe_consumer.dead_letter_reasons import KINDS, how_many
from service import metrics
from tests.demo import ROOT
from tests.fakes import an_event
from tests.promql import COUNTERS_AND_GAUGES, HISTOGRAMS
from view_events.event import VERSION, encode

PAGE = ROOT / "docs" / "metrics.md"
COMMAND = "python -m service.metrics > docs/metrics.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == "".join(f"{line}\n" for line in metrics.page()), f"out of date: run `{COMMAND}`"


def test_every_name_that_others_ask_for_is_listed() -> None:
    rows = [line.split("`")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(COUNTERS_AND_GAUGES | HISTOGRAMS)


def test_ages_are_told_apart_from_five_milliseconds_to_an_hour() -> None:
    assert (metrics.AGE_BUCKETS_S[0], metrics.AGE_BUCKETS_S[-1]) == (0.005, 3600)


@pytest.mark.parametrize(
    ("body", "events"),
    [
        ([[encode([an_event(), an_event()])], {"version": VERSION}, {}], 2),
        ([[[]], {}, {}], 0),
        ([["events"], {}, {}], 1),
        ([[], {}, {}], 1),
        ({"a": 1}, 1),
        (7, 1),
        (None, 1),
    ],
)
def test_a_message_whose_events_cannot_be_told_counts_as_one(body: object, events: int) -> None:
    assert how_many(json.dumps(body)) == events
    assert how_many(json.dumps(body).encode()) == events


@pytest.mark.parametrize("body", [b"\xff\xfe{", "{", None, "[" * 100_000])
def test_what_is_no_json_counts_as_one(body: object) -> None:
    assert how_many(body) == 1


def test_threads_that_ask_at_once_get_the_same() -> None:
    made: list[object] = []
    together, inside = threading.Barrier(8), threading.Barrier(8, timeout=0.2)

    def make() -> object:
        with suppress(threading.BrokenBarrierError):
            inside.wait()  # for all who come in, were there no lock
        made.append(object())
        return made[-1]

    once = metrics.Once(make)

    def ask(_: int) -> object:
        together.wait(5)
        return once()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(map(id, pool.map(ask, range(8))))) == len(made) == 1


def test_every_reason_is_a_word_that_a_label_can_be() -> None:
    assert all(kind.replace("-", "").isalpha() for kind in KINDS)


def test_modules_do_not_import_prometheus_client_before_a_metric_is_made(tmp_path: Path) -> None:
    """`flixtrail status` shall not pay for it, nor a worker that is not asked for metrics."""
    script = "import sys, service.metrics; sys.exit('prometheus_client' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env={"HOME": str(tmp_path)}, check=True)
