"""Publishes poison and killers directly to the broker: messages that no worker can store.

The streaming app refuses poison. It also joins requests into one message, so a killer there is in one message with
other events. Here it is known which events are in one message.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count, cycle
from typing import Any
from uuid import uuid4

import amqp
import msgspec
from kombu import Connection

from proof.chaos.ledger import CONFIRMED, KILLS_CHILD, KILLS_PARENT, Attempt, Event
from safe_consumer.republish import PERSISTENT
from service.confirming_connection import AWAY, TIMEOUT_S, confirming, drop, open_channel
from view_events import topology
from view_events.event import TASK, VERSION, new_event_id

KILLS = {"child": KILLS_CHILD, "parent": KILLS_PARENT}
#: Good events in the same message as a bad one.
COMPANIONS = 4
#: PostgreSQL does not store this character in a text.
NUL = "\0"


@dataclass(frozen=True, slots=True)
class InjectedMessage:
    """One message. `events` are good and must be stored. `deadly` (mark -> what it is) must become dead letters."""

    body: bytes
    content_type: str | None
    headers: Mapping[str, Any] | None
    events: tuple[Event, ...] = ()
    poison: Mapping[str, str] = field(default_factory=dict)
    killers: Mapping[str, str] = field(default_factory=dict)

    def publish(self, broker_url: str) -> Attempt:
        """Publish once, over a connection of its own. Returns the attempt, and raises nothing."""
        began = datetime.now(UTC)
        connection = Connection(broker_url, **confirming("chaos-guests"))
        try:
            open_channel(connection).basic_publish(
                amqp.Message(
                    self.body,
                    content_type=self.content_type,
                    content_encoding="utf-8",
                    application_headers=self.headers,
                    delivery_mode=PERSISTENT,
                ),
                exchange=topology.VIEWS.name,
                routing_key=topology.routing_key(["progress"]),
                mandatory=True,
                confirm_timeout=TIMEOUT_S,
            )
            answer = CONFIRMED
        except AWAY as error:
            answer = f"{type(error).__name__}: {error}"
        finally:
            drop(connection)
        return Attempt(began, datetime.now(UTC), answer)


class MessageFactory:
    """Makes these messages, each different from the last. `name` is a prefix of the viewers' names."""

    def __init__(self, name: str, video_id: str) -> None:
        self._name = name
        self._video_id = video_id
        self._numbers = count()
        self._recipes = cycle(self._poisons())

    def poison(self) -> InjectedMessage:
        """Return the next kind of poison."""
        return next(self._recipes)()

    def killer(self, kind: str) -> InjectedMessage:
        """Return an event that kills a worker's `child` or `parent`, in a message of its own."""
        event = self._event(f"{KILLS[kind]}{self._name}-{next(self._numbers)}")
        return message([as_sent(event)], killers={event.event_id: f"kills its worker's {kind}"})

    def _poisons(self) -> Iterator[Callable[[], InjectedMessage]]:
        yield self._nul_among_good_ones
        yield self._no_json
        yield self._unknown_task
        yield self._no_event_among_good_ones
        yield self._no_message
        yield self._unknown_version

    def _nul_among_good_ones(self) -> InjectedMessage:
        bad, good = self._event(f"nul{NUL}"), self._companions()
        events = [as_sent(event) for event in (*good[:2], bad, *good[2:])]
        return message(events, good, poison={bad.event_id: "a NUL in a text, which PostgreSQL refuses"})

    def _no_event_among_good_ones(self) -> InjectedMessage:
        mark, good = str(uuid4()), self._companions()
        events = [*(as_sent(event) for event in good), {"no_event": mark}]
        return message(events, good, poison={mark: "an item that is not an event"})

    def _no_json(self) -> InjectedMessage:
        mark = str(uuid4())
        body = b"\xff\xfe{ " + mark.encode()
        return InjectedMessage(body, "application/json", headers(mark), poison={mark: "a body that is not JSON"})

    def _no_message(self) -> InjectedMessage:
        mark = str(uuid4())
        return InjectedMessage(
            f"hello {mark}".encode(), "text/plain", None, poison={mark: "a message that is not one of Celery's"}
        )

    def _unknown_task(self) -> InjectedMessage:
        mark = str(uuid4())
        events = [as_sent(self._event("nobody"))]
        return message(events, poison={mark: "a task that no worker knows"}, task_id=mark, task="history.unheard_of")

    def _unknown_version(self) -> InjectedMessage:
        mark = str(uuid4())
        events = [as_sent(self._event("nobody"))]
        return message(events, poison={mark: "a version from the future"}, task_id=mark, version=VERSION + 1)

    def _companions(self) -> tuple[Event, ...]:
        viewer_id = f"{self._name}-{next(self._numbers)}"
        return tuple(self._event(viewer_id) for _ in range(COMPANIONS))

    def _event(self, viewer_id: str) -> Event:
        return Event(
            event_id=str(new_event_id()),
            viewer_id=viewer_id,
            video_id=self._video_id,
            playback_id=str(uuid4()),
            kind="progress",
            position_s=1.0,
            at=datetime.now(UTC),
        )


def as_sent(event: Event) -> dict[str, Any]:
    """Return an event as the streaming app publishes it."""
    sent: dict[str, Any] = msgspec.to_builtins(event)
    return {**sent, "received_at": sent["at"]}


def headers(task_id: str, task: str = TASK) -> dict[str, Any]:
    """Return the headers of a Celery message."""
    return {"task": task, "id": task_id, "retries": 0}


def message(
    events: Sequence[object],
    good: tuple[Event, ...] = (),
    *,
    poison: Mapping[str, str] | None = None,
    killers: Mapping[str, str] | None = None,
    task_id: str | None = None,
    task: str = TASK,
    version: int = VERSION,
) -> InjectedMessage:
    """Make a Celery message with these events."""
    body = json.dumps([[events], {"version": version}, {}]).encode()
    return InjectedMessage(
        body, "application/json", headers(task_id or str(uuid4()), task), good, poison or {}, killers or {}
    )
