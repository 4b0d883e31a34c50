"""What the client knows: each event that it sent and how that was answered, what has to be dead, and who was erased."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import msgspec

from view_events.event import Kind

ACCEPTED = "202"
#: The answer of a broker that was sent a message past the streaming app.
CONFIRMED = "confirmed"

#: Viewers whose events kill the pool's process that is about to write them (proof/chaos/killing.py).
KILLS_CHILD = "killer-child-"
#: Viewers whose events kill the whole worker: parent and child.
KILLS_PARENT = "killer-parent-"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One view event as `POST /api/views` takes it. Times are those of the client's clock."""

    event_id: str
    viewer_id: str
    video_id: str
    playback_id: str
    kind: Kind
    position_s: float
    at: datetime
    played_from_s: float | None = None
    sent_at: datetime | None = None


class Attempt(NamedTuple):
    """One time that a request was sent. `began` and `ended`: this machine's clock; `sent_at`: what the client said."""

    began: datetime
    ended: datetime
    answer: str  #: the status, or what happened instead
    sent_at: datetime | None = None


@dataclass(eq=False, slots=True)
class Sending:
    """Events that travel together, under the same ids until they are accepted."""

    events: tuple[Event, ...]
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Erasure:
    """When a viewer was erased: not earlier than `began`, not later than `ended`.

    `ended` is None where the erase failed: then nobody knows.
    """

    began: datetime
    ended: datetime | None


@dataclass(slots=True)
class Letter:
    """What has to end in the dead-letter queue, and nowhere else. `confirmed`: the broker has taken it."""

    what: str
    confirmed: bool = False
    attempts: list[Attempt] = field(default_factory=list)


@dataclass
class Ledger:
    """The client's account of a run, by event id. Complete once `Load.finish` has returned."""

    #: Answered 202, or confirmed by the broker.
    accepted: dict[str, Event] = field(default_factory=dict)
    #: Whatever was sent, how often, and what came of it. Without an answer nobody knows whether it will be stored.
    sent: dict[str, Sending] = field(default_factory=dict)
    #: Refused for good, with the status: a client that goes by the rules is never refused.
    refused: dict[str, str] = field(default_factory=dict)
    #: By viewer.
    erased: dict[str, Erasure] = field(default_factory=dict)
    #: Poison, by what tells it among the dead letters: the id of a message, of an event, or a mark in the body.
    poison: dict[str, Letter] = field(default_factory=dict)
    #: Events that kill who writes them, by event id.
    killers: dict[str, Letter] = field(default_factory=dict)

    @property
    def deadly(self) -> Mapping[str, Letter]:
        """All that has to be dead: poison and killers."""
        return {**self.poison, **self.killers}

    def send(self, events: Iterable[Event]) -> Sending:
        """Take down events that are about to be sent for the first time."""
        sending = Sending(tuple(events))
        self.sent.update(dict.fromkeys((event.event_id for event in sending.events), sending))
        return sending

    def accept(self, sending: Sending) -> None:
        """All its events are safe, says who answered."""
        self.accepted.update({event.event_id: event for event in sending.events})
