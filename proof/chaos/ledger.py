"""The client's record: each event that it sent, its answers, what must become a dead letter, and who was erased."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import msgspec

from view_events.event import Kind

ACCEPTED = "202"
#: The answer of a broker to a message that was published directly, without the streaming app.
CONFIRMED = "confirmed"

#: The video of the page in a browser (proof/chaos/page.py). No other viewer watches it. So its file can be removed
#: without disturbing the others, and the page checks its views itself.
WATCHED_IN_A_BROWSER = "watched-in-a-browser"
#: Viewers whose events kill the pool process that is about to write them (proof/chaos/killing.py).
KILLS_CHILD = "killer-child-"
#: Viewers whose events kill the whole worker: parent and child.
KILLS_PARENT = "killer-parent-"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One view event for `POST /api/views`. Its times are those of the client's clock."""

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
    """One time that a request was sent. `began` and `ended` are by this machine's clock; `sent_at` is what the client
    sent.
    """

    began: datetime
    ended: datetime
    answer: str  #: the status, or what happened instead
    sent_at: datetime | None = None


@dataclass(eq=False, slots=True)
class Sending:
    """Events in one request. They keep their ids until they are accepted."""

    events: tuple[Event, ...]
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Erasure:
    """The erase of a viewer: not earlier than `began`, not later than `ended`.

    `ended` is None if the erase failed. Then its effect is unknown.
    """

    began: datetime
    ended: datetime | None


@dataclass(slots=True)
class ExpectedDeadLetter:
    """Something that must end in the dead-letter queue and nowhere else. `confirmed`: the broker has confirmed it."""

    what: str
    confirmed: bool = False
    attempts: list[Attempt] = field(default_factory=list)


@dataclass
class Ledger:
    """The client's record of a run, by event id. It is complete when `Load.finish` has returned."""

    #: Answered with 202, or confirmed by the broker.
    accepted: dict[str, Event] = field(default_factory=dict)
    #: Everything that was sent, with its attempts. Without an answer, an event may or may not be stored.
    sent: dict[str, Sending] = field(default_factory=dict)
    #: Refused for good, with the status. A client that follows the rules is never refused.
    refused: dict[str, str] = field(default_factory=dict)
    #: By viewer.
    erased: dict[str, Erasure] = field(default_factory=dict)
    #: Poison, by its mark among the dead letters: the id of a message or of an event, or a text in the body.
    poison: dict[str, ExpectedDeadLetter] = field(default_factory=dict)
    #: Events that kill their writer, by event id.
    killers: dict[str, ExpectedDeadLetter] = field(default_factory=dict)

    @property
    def deadly(self) -> Mapping[str, ExpectedDeadLetter]:
        """Everything that must become a dead letter: poison and killers."""
        return {**self.poison, **self.killers}

    def send(self, events: Iterable[Event]) -> Sending:
        """Record events that are about to be sent for the first time."""
        sending = Sending(tuple(events))
        self.sent.update(dict.fromkeys((event.event_id for event in sending.events), sending))
        return sending

    def accept(self, sending: Sending) -> None:
        """Record that all its events were accepted."""
        self.accepted.update({event.event_id: event for event in sending.events})
