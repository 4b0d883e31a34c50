"""The message between the services."""

from __future__ import annotations

import msgspec
import pytest

from tests.fakes import an_event
from view_events import topology
from view_events.event import UnknownEventVersion, decode, describe, encode


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
