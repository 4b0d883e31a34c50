"""service.garbage_collection: views do not make Python look for reference cycles, and cycles still go."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import msgspec
import pytest

from service import garbage_collection
from tests.fakes import an_event
from view_events.event import VERSION, decode_message


class Node:
    """Something that may refer to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_a_cycle_goes_in_the_end() -> None:
    garbage_collection.collect_rarely()
    node = weakref.ref(Node())
    kept = [Node() for _ in range(2 * garbage_collection.THRESHOLD_OBJECTS)]
    assert node() is None, f"it outlived {len(kept):,} new objects"


def test_a_batch_of_views_is_decoded_without_a_look_at_what_was_there_before() -> None:
    """The safeguard for speed: with Python's own threshold a message of 2,000 views looks several times."""
    message = msgspec.json.encode((([an_event() for _ in range(2_000)],), {"version": VERSION}, {}))

    assert _looks(message) > 0
    garbage_collection.collect_rarely()
    assert _looks(message) == 0


def _looks(message: bytes) -> int:
    """How often Python looked for cycles while a message was decoded."""
    phases: list[str] = []

    def note(phase: str, _info: dict[str, int]) -> None:
        phases.append(phase)

    gc.callbacks.append(note)
    try:
        decode_message(message)
    finally:
        gc.callbacks.remove(note)
    return phases.count("start")
