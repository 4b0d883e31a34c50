"""Reads the dead-letter queue for `flixtrail dead`: which messages are in it, why, and what to do with each."""

from __future__ import annotations

import hashlib
import re
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

from safe_consumer import undecodable_properties
from safe_consumer.dead_letter_reasons import REDRIVEN, WHEN, Reason, events, last_death, one_line, reason
from safe_consumer.republish import copy
from service.addresses import broker_connection
from service.confirming_connection import TIMEOUT_S, confirming, drop, open_channel
from view_events.topology import ALONE, DEAD_LETTERS, HISTORY

# The dead letters include messages whose properties py-amqp cannot decode.
undecodable_properties.tolerate()

#: An exclusive queue that serves as a lock: only one reader at a time, because the messages that one reader keeps
#: unacknowledged are invisible to others. The broker gives the name to one connection and frees it when that connection
#: ends.
READER = "views.dead.reader"
READER_WAIT_S = 5
RETRY_EVERY_S = 0.2
#: The largest prefetch that RabbitMQ allows for a quorum queue.
PREFETCH = 2_000
#: The default exchange: it delivers to the queue with that name, and to no other.
TO_ONE_QUEUE = ""
#: How many hexadecimal digits of an id are shown. A command accepts any prefix that only one dead letter has.
SHORT_ID = 8
#: An id that a person can type, and that has no special meaning for a shell or terminal. A stranger may have written
#: any header.
PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
#: No message is redriven more often: a larger number in the header is not ours.
MOST_REDRIVEN = 1_000_000
#: Years that every calendar and time zone can show.
YEARS = range(1970, 9999)


class AlreadyRead(Exception):
    """Another program reads the dead-letter queue at the moment."""


class DeadLetter:
    """One message in `views.dead`. This connection keeps it unacknowledged until it is redriven or dropped.

    If the connection ends first, RabbitMQ requeues it.
    """

    def __init__(self, raw: Any, message: Message) -> None:
        self.raw = raw
        self.message = message

    @cached_property
    def id(self) -> str:
        """The task's id if a person can type it; otherwise a digest of the message."""
        task_id = self.message.headers.get("id")
        if isinstance(task_id, str) and PLAIN_ID.fullmatch(task_id):
            return task_id
        return hashlib.sha256(repr((self.message.content_type, self.raw.body)).encode()).hexdigest()[:32]

    @cached_property
    def reason(self) -> Reason:
        """Why the message is a dead letter."""
        try:
            return reason(self.message)
        except Exception as error:  # noqa: BLE001 (a message may hold anything; one must not hide the others)
            return Reason("undecodable", f"it cannot be read: {type(error).__name__}")

    @property
    def died_at(self) -> datetime | None:
        """When the message became a dead letter (UTC). None: no header says it, or the time in it is not valid."""
        headers = self.message.headers
        return moment(headers.get(WHEN)) or moment(last_death(headers).get("time"))

    @property
    def times(self) -> int:
        """How often the message became a dead letter: one more than it was redriven."""
        redriven = self.message.headers.get(REDRIVEN)
        counted = type(redriven) is int and 0 <= redriven < MOST_REDRIVEN
        return 1 + (redriven if counted else 0)

    @property
    def key(self) -> tuple[str, int]:
        """A key that tells this dead letter from the others, and from itself after one more redrive."""
        return self.id, self.times

    @property
    def task(self) -> str:
        """The task's name, or an empty text."""
        return one_line(self.message.headers.get("task", ""))

    @cached_property
    def events(self) -> list[Any]:
        """The events as they came. Empty if this is not a message of ours."""
        try:
            return events(self.message)[0]
        except Exception:  # noqa: BLE001 (as above)
            return []

    def of_events(self, field: str) -> list[str]:
        """Return one field of its events. Events without the field are left out."""
        return [one_line(event[field]) for event in self.events if isinstance(event, dict) and event.get(field)]


def moment(value: object) -> datetime | None:
    """Return a header's time in UTC. A time without a zone counts as UTC. None: not a valid time."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(found, datetime):
            return None
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return found if found.year in YEARS else None


@dataclass(frozen=True)
class DeadLetters:
    """The dead-letter queue, read over one connection.

    Its methods may raise one of `confirming_connection.AWAY`. Then the messages that are left are still in the queue.
    """

    connection: Connection
    channel: StdChannel

    def waiting(self) -> int:
        """Return how many messages are in the queue and not delivered to a reader."""
        return int(DEAD_LETTERS(self.channel).queue_declare(passive=True).message_count)

    def in_second_try(self) -> int:
        """Return how many messages reached the delivery limit and are not here yet: a worker tries them once more."""
        return int(ALONE(self.channel).queue_declare(passive=True).message_count)

    def read(self, count: int, seen: Callable[[int], None] = lambda _: None) -> list[DeadLetter]:
        """Read the first `count` messages. Calls `seen` with the number so far, after each step.

        Reading requeues messages, which mixes up their order.
        """
        letters: list[DeadLetter] = []
        while (wanted := min(PREFETCH, count - len(letters))) > 0:
            found = self._some(wanted)
            letters += found
            seen(len(letters))
            if len(found) < wanted:
                break  # another program took the others meanwhile
        return sorted(letters, key=lambda letter: letter.died_at or datetime.min.replace(tzinfo=UTC))

    def _some(self, count: int) -> list[DeadLetter]:
        """Read so many messages on a channel of their own: the prefetch of a channel is at most PREFETCH.

        This is faster than to get them one by one.
        """
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
        """Send a dead letter again, to the queue `history` only: other subscribers have had it already."""
        copy(self.channel, letter.raw, HISTORY.name, {REDRIVEN: letter.times}, exchange=TO_ONE_QUEUE)
        letter.message.ack()

    def drop(self, letter: DeadLetter) -> None:
        """Delete a dead letter from the queue."""
        letter.message.ack()


@contextmanager
def dead_letters(broker_url: str) -> Iterator[DeadLetters]:
    """Open the dead-letter queue for reading.

    At the end RabbitMQ requeues what was neither redriven nor dropped, also after an error. Some of the redriven and
    dropped messages may come back, too. RabbitMQ's channel accepts acknowledgements faster than a quorum queue, and
    keeps the surplus. If the channel ends, that surplus is lost. If you need to be sure, read the queue again.

    Raises AlreadyRead, or one of `confirming_connection.AWAY`.
    """
    connection = broker_connection(broker_url, **confirming("flixtrail dead"))
    try:
        _become_reader(connection)
        channel = connection.channel()
        yield DeadLetters(connection, channel)
        # Close with the protocol's handshake. The broker's answer says that it has read every acknowledgement, but not
        # that its queue has acted on it. This raises if no answer comes; kombu's own close would hide that.
        channel.connection.close()
    finally:
        drop(connection)


def _become_reader(connection: Connection) -> None:
    deadline = monotonic() + READER_WAIT_S
    while True:
        channel = open_channel(connection)
        try:
            channel.queue_declare(READER, exclusive=True, auto_delete=True)
        except ResourceLocked:  # RabbitMQ has closed the channel, too
            if monotonic() > deadline:
                raise AlreadyRead from None
            sleep(RETRY_EVERY_S)
        else:
            return
