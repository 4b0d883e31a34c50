"""The message between the services."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from history_worker.store.tables import view_events
from streaming_app.recording.request import View
from tests.fakes import an_event
from view_events import topology
from view_events.event import Kind, UnknownEventVersion, ViewEvent, decode, describe, encode

MIGRATIONS = Path(__file__).parents[2] / "history_worker" / "store" / "migrations" / "versions"


def test_a_field_of_the_event_is_in_the_request_and_in_the_table() -> None:
    """If you add a field, this names the files that you forgot. For a forgotten migration, test_partitions.py fails."""
    fields = set(ViewEvent.__struct_fields__)
    assert fields - {"trace_id"} == {*view_events.columns.keys()}, "history_worker/store/tables.py"
    made_by_the_app = {"received_at", "trace_id"}
    only_for_the_app = {"sent_at"}
    assert fields - made_by_the_app == {*View.__struct_fields__} - only_for_the_app, (
        "streaming_app/recording/request.py"
    )


def test_a_kind_of_the_event_is_let_through_by_the_table() -> None:
    """If you add a kind, it needs a migration. For the broker's permissions, tests/unit/test_addresses.py fails."""
    checks = [path.read_text() for path in sorted(MIGRATIONS.glob("*.py")) if "kind = '" in path.read_text()]
    assert set(re.findall(r"\bkind = '(\w+)'", checks[-1])) == set(get_args(Kind)), "a new migration"


def test_a_version_that_this_worker_does_not_know_is_refused_by_name() -> None:
    with pytest.raises(UnknownEventVersion, match="2"):
        decode(encode([an_event()]), version=2)


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode([{"event_id": "x"}], version=1)


def test_a_batch_is_described_in_a_few_words() -> None:
    events = [an_event(), an_event(), an_event(kind="finished")]
    assert describe(events) == "<3 events: finished 1, progress 2>"


def test_the_routing_key_has_each_kind_once_and_sorted() -> None:
    assert topology.routing_key(["progress", "finished", "progress"]) == "view.finished.progress"
