"""The drain of the outbox: which of its events are sent next, when, and which the broker refuses for good."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from uuid import UUID

import structlog

from streaming_app.recording.circuit_breaker import CircuitBreaker
from streaming_app.recording.errors import InDoubt, Refused
from streaming_app.recording.outbox import Outbox, OutboxMessage

log = structlog.get_logger(__name__)

#: Seconds until the outbox is read again, if it was empty or could not be read.
IDLE_S = 0.5
#: Seconds until the next message, if one was not confirmed.
RETRY_S = 0.5


class OutboxDrain:
    """Chooses the next message of the outbox. Only the publisher thread calls the methods.

    `confirms` is the number of messages that the broker has confirmed so far, of fresh and of old events.
    """

    def __init__(self, outbox: Outbox, breaker: CircuitBreaker, clock: Callable[[], float]) -> None:
        self._outbox = outbox
        self._breaker = breaker
        self._clock = clock
        self._next_at = 0.0
        #: `confirms` at the last refusal; and when a single event was first refused, by event id.
        self._confirms_at_refusal = 0
        self._refused: dict[UUID, int] = {}

    def is_due(self) -> bool:
        """Return whether there is something to send now."""
        return self._outbox.events > 0 and self._clock() >= self._next_at

    def pause(self) -> None:
        """Send nothing for RETRY_S."""
        self._next_at = self._clock() + RETRY_S

    def next_message(self, events: int) -> OutboxMessage | None:
        """Return the oldest events, at most this many, or one request. None if there is nothing to send now.

        Call it only while there is a connection.
        """
        if self._clock() < self._next_at:
            return None
        try:
            message = self._outbox.oldest(events)
        except sqlite3.Error as error:
            log.warning("the outbox cannot be read", reason=str(error))
            self._next_at = self._clock() + IDLE_S
            return None
        if message is None:
            self._next_at = self._clock() + IDLE_S
            self._breaker.close()  # no event to test the broker with, so the next request tests it
        return message

    def not_confirmed(self, message: OutboxMessage, doubt: InDoubt, confirms: int) -> None:
        """Send this message again later, or parts of it if the broker refuses it."""
        self.pause()
        if isinstance(doubt, Refused):
            self._split_or_put_aside(message, str(doubt), confirms)

    def _split_or_put_aside(self, message: OutboxMessage, reason: str, confirms: int) -> None:
        """Find the events that the broker refuses for good. Each call tries one message; fresh events are sent in
        between.

        An event is put aside only if other messages have been confirmed since. Otherwise the event may not be the
        cause.
        """
        event_id = message.events[0].event_id
        for_good = False
        if len(message.events) == 1:
            for_good = confirms > self._refused.setdefault(event_id, confirms)
        try:
            if for_good:
                self._outbox.put_aside(message, reason)
            else:
                self._outbox.split(message)
        except sqlite3.Error as error:
            log.warning("the outbox cannot be changed", reason=str(error))
            return
        if for_good:
            del self._refused[event_id]
        if confirms > self._confirms_at_refusal:
            self._next_at = 0
        self._confirms_at_refusal = confirms
