"""The deadlines of requests, where neither the broker nor the disk answers. The rest is in test_publisher.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from streaming_app.recording import deadlines
from streaming_app.recording.circuit_breaker import CircuitBreaker
from streaming_app.recording.deadlines import Deadlines
from streaming_app.recording.errors import NotAccepted
from streaming_app.recording.outbox import Outbox
from streaming_app.recording.pending_request import PendingRequest
from tests.fakes import an_event

DEADLINE_S = 0.05


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    """An outbox that commits nothing, as on a disk that hangs: its thread is not started."""
    return Outbox(tmp_path, max_bytes=1024 * 1024)


@pytest.fixture
def watching(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Deadlines, CircuitBreaker]]:
    monkeypatch.setattr(deadlines, "OUTBOX_DEADLINE_S", DEADLINE_S)
    monkeypatch.setattr(deadlines, "DEADLINE_S", DEADLINE_S)
    lock = threading.RLock()
    breaker = CircuitBreaker(lock)
    watching = Deadlines(outbox, breaker, lock, monotonic)
    watching.start()
    yield watching, breaker
    with lock:
        watching.stop()


def test_a_request_is_answered_also_if_neither_the_broker_nor_the_disk_does(
    watching: tuple[Deadlines, CircuitBreaker], outbox: Outbox
) -> None:
    watched, breaker = watching
    request = PendingRequest([an_event()], deadline=monotonic() + DEADLINE_S)
    watched.watch(request)
    with pytest.raises(NotAccepted, match="in time"):
        request.safe.result(timeout=5)
    assert breaker.is_open
    assert not outbox.usable


def test_the_disk_has_a_deadline_also_for_a_request_that_does_not_wait_for_the_broker(
    watching: tuple[Deadlines, CircuitBreaker], outbox: Outbox
) -> None:
    watched, breaker = watching
    request = PendingRequest([an_event()], deadline=monotonic() + DEADLINE_S)
    watched.store(request)
    with pytest.raises(NotAccepted, match="in time"):
        request.safe.result(timeout=5)
    assert not breaker.is_open
    assert not outbox.usable
