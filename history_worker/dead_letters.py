"""The dead-letter queue as a person sees it: what is in it and why, and what to do with each message."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from time import monotonic, sleep
from typing import Any

from amqp.exceptions import ResourceLocked
from kombu import Connection
from kombu.message import Message
from kombu.transport.base import StdChannel

from history_worker.moving import TIMEOUT_S, confirming, copy, drop, open_channel
from history_worker.reasons import REDRIVEN, WHEN, Malformed, Reason, events, last_death, reason
from view_events.topology import ALONE, DEAD_LETTERS, HISTORY

#: One reader at a time: what one holds the others do not see. The broker gives the name to one connection, and takes it
#: back when that is gone.
READER = "views.dead.reader"
READER_WAIT_S = 5
LOOK_EVERY_S = 0.2
#: What RabbitMQ lets a consumer of a quorum queue hold.
PREFETCH = 2_000
#: The nameless exchange: to the queue of that name, and to no other.
TO_ONE_QUEUE = ""
#: Hexadecimal digits of an id that are shown; any beginning that only one dead letter has will do.
SHORT_ID = 8


class AlreadyRead(Exception):
    """Somebody else reads the dead-letter queue just now."""


class DeadLetter:
    """One message in `views.dead`, held by this connection until it is redriven or dropped, or the connection ends."""

    def __init__(self, raw: Any, message: Message) -> None:
        self.raw = raw
        self.message = message

    @cached_property
    def id(self) -> str:
        """Its task's id; where it has none, a digest of what it carries."""
        task_id = self.message.headers.get("id")
        if isinstance(task_id, str) and task_id:
            return task_id
        return hashlib.sha256(repr((self.message.content_type, self.raw.body)).encode()).hexdigest()[:32]

    @cached_property
    def reason(self) -> Reason:
        """Why it is here."""
        return reason(self.message)

    @property
    def died_at(self) -> datetime | None:
        """When it came here."""
        noted = self.message.headers.get(WHEN)
        if isinstance(noted, str):
            return datetime.fromisoformat(noted)
        time = last_death(self.message.headers).get("time")
        return time.replace(tzinfo=UTC) if isinstance(time, datetime) else None

    @property
    def times(self) -> int:
        """How often it has come here: once more than it was redriven."""
        redriven = self.message.headers.get(REDRIVEN)
        return 1 + (redriven if isinstance(redriven, int) else 0)

    @property
    def key(self) -> tuple[str, int]:
        """Tells it from the others, and from itself after one more redrive."""
        return self.id, self.times

    @property
    def task(self) -> str:
        """The task's name, as far as there is one."""
        return str(self.message.headers.get("task", ""))

    @cached_property
    def events(self) -> list[Any]:
        """Its events as they came; none where it is no message of ours."""
        try:
            return events(self.message)[0]
        except Malformed:
            return []

    def of_events(self, field: str) -> list[str]:
        """One field of its events, as far as they have it."""
        return [str(event[field]) for event in self.events if isinstance(event, dict) and event.get(field)]


@dataclass(frozen=True)
class DeadLetters:
    """The queue, read by one connection. What it does may raise one of `moving.AWAY`; then the rest is still there."""

    connection: Connection
    channel: StdChannel

    def waiting(self) -> int:
        """How many there are that nobody holds."""
        return int(DEAD_LETTERS(self.channel).queue_declare(passive=True).message_count)

    def tried_alone(self) -> int:
        """How many reached the delivery limit and are not here yet: a worker tries them once more."""
        return int(ALONE(self.channel).queue_declare(passive=True).message_count)

    def read(self, count: int, seen: Callable[[int], None] = lambda _: None) -> list[DeadLetter]:
        """The first `count` of them. `seen` is told how many, after each. To look at them mixes up their order."""
        letters: list[DeadLetter] = []
        while (wanted := min(PREFETCH, count - len(letters))) > 0:
            found = self._some(wanted)
            letters += found
            seen(len(letters))
            if len(found) < wanted:
                break  # somebody took the others meanwhile
        return sorted(letters, key=lambda letter: letter.died_at or datetime.min.replace(tzinfo=UTC))

    def _some(self, count: int) -> list[DeadLetter]:
        """That many, on a channel of their own: a channel may hold PREFETCH at the most. Faster than one by one."""
        channel = self.connection.channel()
        letters: list[DeadLetter] = []
        channel.basic_qos(0, count, False)  # noqa: FBT003 (py-amqp's signature)
        consumer = channel.basic_consume(
            DEAD_LETTERS.name, callback=lambda raw: letters.append(DeadLetter(raw, channel.message_to_python(raw)))
        )
        while len(letters) < count:
            try:
                self.connection.drain_events(timeout=TIMEOUT_S)
            except TimeoutError:
                break
        channel.basic_cancel(consumer)
        return letters

    def redrive(self, letter: DeadLetter) -> None:
        """Send it again, to `history` alone: other subscribers of the exchange have had it."""
        copy(self.channel, letter.raw, HISTORY.name, {REDRIVEN: letter.times}, exchange=TO_ONE_QUEUE)
        letter.message.ack()

    def drop(self, letter: DeadLetter) -> None:
        """Forget it."""
        letter.message.ack()


@contextmanager
def dead_letters(broker_url: str) -> Iterator[DeadLetters]:
    """Read the dead-letter queue. What was neither redriven nor dropped goes back when this ends, however it does.

    Of what was, some may come back, too: RabbitMQ's channel takes acknowledgements faster than a quorum queue does, and
    keeps those that are too many; with the channel they are gone. Whoever needs to be sure looks again.

    Raises AlreadyRead, or one of `moving.AWAY`.
    """
    connection = Connection(broker_url, **confirming("flixtrail dead"))
    try:
        _become_reader(connection)
        channel = connection.channel()
        yield DeadLetters(connection, channel)
        # In order: the broker's answer says that it has read every acknowledgement, though not that its queue has acted
        # on it. Raises when none comes; kombu's own close would hide that.
        channel.connection.close()
    finally:
        drop(connection)


def _become_reader(connection: Connection) -> None:
    deadline = monotonic() + READER_WAIT_S
    while True:
        channel = open_channel(connection)
        try:
            channel.queue_declare(READER, exclusive=True, auto_delete=True)
        except ResourceLocked:  # and the channel is gone
            if monotonic() > deadline:
                raise AlreadyRead from None
            sleep(LOOK_EVERY_S)
        else:
            return
