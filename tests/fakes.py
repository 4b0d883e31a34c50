"""Fakes of our own interfaces, written by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NoReturn
from uuid import uuid4

from safe_consumer.options import Options
from streaming_app.recording.errors import BrokerAway, InDoubt, NotAccepted, Refused
from view_events import topology
from view_events.event import ViewEvent, new_event_id


class RecordingLink:
    """A broker that confirms everything and remembers each message.

    `doubts`: how many of the next sends end in doubt; `away`: whether connecting fails; `gate`: sends wait for it.
    `refuses`: for which events it refuses a whole message.
    """

    def __init__(
        self,
        *,
        doubts: int = 0,
        away: bool = False,
        refuses: Callable[[ViewEvent], bool] = lambda _event: False,
    ) -> None:
        self.refuses = refuses
        self.refusals = 0
        self.messages: list[list[ViewEvent]] = []
        self.doubts = doubts
        self.away = away
        self.reason = "told to be"
        self.connected = False
        self.connects = 0
        self.gate = threading.Event()
        self.gate.set()
        self.sending = threading.Event()

    def connect(self) -> None:
        if self.away:
            raise BrokerAway(self.reason)
        self.connected = True
        self.connects += 1

    def send(self, events: Sequence[ViewEvent]) -> str:
        self.sending.set()
        self.gate.wait(10)
        if any(map(self.refuses, events)):
            self.refusals += 1
            self.connected = False
            raise Refused("told to")
        self.messages.append(list(events))
        if self.doubts:
            self.doubts -= 1
            self.connected = False
            raise InDoubt("told to be")
        return f"task-{len(self.messages)}"

    def check(self) -> None:
        if self.away:
            self.connected = False
            raise InDoubt("gone")

    def discard(self) -> None:
        self.connected = False

    @property
    def events(self) -> list[ViewEvent]:
        return [event for message in self.messages for event in message]


def an_event(**fields: object) -> ViewEvent:
    now = datetime.now(UTC)
    values: dict[str, object] = {
        "event_id": new_event_id(),
        "viewer_id": "alice",
        "video_id": "clip-1",
        "playback_id": uuid4(),
        "kind": "progress",
        "position_s": 10.0,
        "at": now,
        "received_at": now,
    }
    return ViewEvent(**{**values, **fields})  # type: ignore[arg-type]


def consumer_options(**changed: Any) -> Options:
    """The options of a consumer as a worker hands them in, without a database."""

    def no_database() -> NoReturn:
        raise AssertionError("a unit test has no database")

    usual = Options(topology.HISTORY, topology.ALONE, "tests.group", 1024 * 1024, 1_200, no_database)
    return replace(usual, **changed)


def ids(events: Iterable[ViewEvent]) -> list[str]:
    return [str(event.event_id) for event in events]


def fill(put: Callable[[], object], at_most: int = 1000) -> int:
    """How often `put` worked until the outbox was full."""
    for stored in range(at_most):
        try:
            put()
        except NotAccepted as error:
            assert "full" in str(error), error
            return stored
    raise AssertionError(f"not full after {at_most}")
