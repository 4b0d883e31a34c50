"""Finds out why a message is a dead letter: from the headers of a worker or the broker, or else from its content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from kombu import compression
from kombu.message import Message

from safe_consumer.undecodable_properties import UNREADABLE
from view_events.event import TASK, VERSION, UnknownEventVersion, decode

#: Headers that a worker adds to a message that it puts into `views.dead` itself.
KIND, DETAIL, WHEN = "refused", "refused_because", "refused_at"
#: Header: how often `flixtrail dead redrive` has redriven the message.
REDRIVEN = "redriven"
#: Header of a message in `history.alone`: since when workers try it there (safe_consumer/second_try.py).
ALONE_SINCE = "alone_since"
#: The broker's headers about a message's past. A message that is published anew has no past.
BROKERS_HEADERS = ("x-death", "x-delivery-count", "x-acquired-count", "x-first-death-", "x-last-death-")
ACCEPTED = frozenset({"application/json"})
#: The broker's headers that describe how a message was dead-lettered.
DEATHS = ("x-death", "x-first-death-", "x-last-death-")
#: The fields of an entry of `x-death`, and their types.
DEATH = {"count": int, "reason": str, "queue": str, "time": datetime, "exchange": str, "routing-keys": list}
LONGEST_DETAIL = 300
#: The headers that Celery gets to see, each at most LONGEST_DETAIL characters. They are for logs, Flower and dead
#: letters.
TEXTS = ("id", "task", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin")
#: The largest number in an AMQP header, and how deep we look into nested tables.
LARGEST_NUMBER = 2**63 - 1
DEEPEST = 5
#: The largest count of redrives that we believe.
MOST_REDRIVES = 1_000_000
#: Decodes args, kwargs and embedded, but not their content.
_OUTLINE = msgspec.json.Decoder(tuple[list[msgspec.Raw], dict[str, msgspec.Raw], dict[str, Any] | None])
#: The keys of a message's third part. If a task calls no other task, Celery writes None or an empty value for each.
EMBEDDED = frozenset({"callbacks", "errbacks", "chain", "chord"})

#: What can be wrong with a dead letter, and what to do about it.
KINDS = {
    "undecodable": "not JSON, or not a Celery message",
    "calls-others": "it asks the worker to run further tasks (callbacks, chain, chord): a worker runs its own only",
    "unknown-task": "no worker knows a task of this name",
    "unknown-version": "its events are newer than the workers: upgrade them, then redrive",
    "no-event": "a field is missing or has the wrong type",
    "database": "PostgreSQL refuses the event for good",
    "too-slow": "PostgreSQL takes too long for this event, while it writes others: find out why, then redrive",
    "too-old": "its id is older than what is kept: whether it was stored before is not known any more",
    "delivery-limit": "the workers that held it died, also when it was tried alone",
    "failed": "the task raised an error; a worker's log has it",
    "expired": "it waited longer than a policy of the broker, or the message itself, lets it",
    "maxlen": "the queue was full, as a policy of the broker says",
}


class Reason(NamedTuple):
    """One of KINDS, and a detail."""

    kind: str
    detail: str


#: For a message whose task raised an error, and whose content has no visible fault.
FAILED = Reason("failed", "the task raised an error; a worker's log has it")


class Malformed(Exception):
    """No worker can run this message. `reason` has the kind and the detail."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"{reason.kind}: {reason.detail}")
        self.reason = reason


def reason_of(error: BaseException) -> Reason:
    """Return the reason for an error of `check_outline` or of a decoder."""
    return error.reason if isinstance(error, Malformed) else Reason("undecodable", one_line(error))


def one_line(text: object) -> str:
    """Return the first line, shortened, as valid UTF-8: headers and tables have little room."""
    line = (str(text).strip().splitlines() or [""])[0][:LONGEST_DETAIL]
    return line.encode(errors="replace").decode()


def reason(message: Message) -> Reason:
    """Return why this message, from `views.dead`, was dead-lettered. Any header may have any value."""
    headers = message.headers
    if KIND in headers:
        return Reason(one_line(headers[KIND]), one_line(headers.get(DETAIL, "")))
    seen = fault(message) or fault_of_events(message)
    if seen:
        return seen
    death = last_death(headers)
    why, where = death.get("reason"), one_line(death.get("queue"))
    if why == "delivery_limit":
        return Reason("delivery-limit", f"requeued too often in {where}")
    if why in ("rejected", None):  # a tuple, not a set: the value may be a list, which has no hash
        return FAILED
    return Reason(one_line(why), f"in {where}")


def fault(message: Message) -> Reason | None:
    """Return what is wrong with the message as a whole. None: a worker can run it, and checks its events one by one."""
    try:
        _, version = events(message)
        decode([], version)
    except Malformed as malformed:
        return malformed.reason
    except UnknownEventVersion as unknown:
        return Reason("unknown-version", one_line(unknown))
    return None


def fault_of_events(message: Message) -> Reason | None:
    """Return what is wrong with its first invalid event. The message must have no other fault."""
    try:
        decode(*events(message))
    except msgspec.ValidationError as invalid:
        return Reason("no-event", one_line(invalid))
    return None


def events(message: Message) -> tuple[list[Any], Any]:
    """Return the events of a message as they came, and their version.

    Raises Malformed for a message that is not ours.
    """
    args, kwargs = arguments(message)
    if message.headers["task"] != TASK:
        raise Malformed(Reason("unknown-task", one_line(message.headers["task"])))
    found = args[0] if args else kwargs.get("events")
    if not isinstance(found, list):
        raise Malformed(Reason("no-event", f"expected a list of events, got {type(found).__name__}"))
    return found, kwargs.get("version", args[1] if len(args) > 1 else VERSION)


def how_many(body: Any) -> int:
    """Return how many events a message's body has, for the metrics. 1 if that cannot be told."""
    try:
        found = json.loads(body)[0][0]
    except (TypeError, ValueError, LookupError, RecursionError):
        return 1
    return len(found) if isinstance(found, list) else 1


def check_outline(message: Message) -> None:
    """Check that a worker can run the message. Raises Malformed, as `arguments` does.

    This takes a tenth of the time of `arguments`, because it does not decode the events. A process of the pool does
    that.
    """
    if message.content_type in ACCEPTED and "compression" not in message.headers:
        # If this fails, `arguments` below says what is wrong.
        with suppress(msgspec.MsgspecError, RecursionError, TypeError, UnicodeError):
            # Celery asks the message for its payload and gets this. It never looks deeper into the payload.
            message._decoded_cache = list(_OUTLINE.decode(message.body))  # noqa: SLF001
    arguments(message)
    if message.headers["task"] != TASK:
        raise Malformed(Reason("unknown-task", one_line(message.headers["task"])))
    if is_forged(message.headers):
        raise _undecodable("its headers about earlier deaths are not RabbitMQ's")


def check_whole(message: Message) -> None:
    """Check that the whole message can be decoded, also after `check_outline`. Raises Malformed."""
    message._decoded_cache = None  # noqa: SLF001
    arguments(message)


def arguments(message: Message) -> tuple[list[Any], dict[str, Any]]:
    """Return the task's args and kwargs (Celery's protocol 2). Raises Malformed (undecodable).

    Up to 5.7 at least, some of these errors end the whole worker in Celery itself. The message keeps the decoded
    payload, so it is decoded only once.
    """
    if UNREADABLE in message.headers:
        raise _undecodable(f"its properties cannot be decoded: {message.headers[UNREADABLE]}")
    message.accept = ACCEPTED
    try:
        body = message.payload
    except Exception as error:  # noqa: BLE001 (decoders raise anything)
        raise _undecodable(f"{type(error).__name__}: {error}") from None
    headers = message.headers
    if message.errors:
        raise _undecodable(f"cannot be decompressed: {message.errors[0][1]}")
    if not (isinstance(body, list) and [type(part) for part in body[:2]] == [list, dict] and len(body) == 3):  # noqa: PLR2004
        raise _undecodable("its body is not [args, kwargs, embedded]")
    for name in ("id", "task"):
        if not isinstance(headers.get(name), str):
            raise _undecodable(f"its header {name!r} is no text")
    if not _is_empty(body[2]):
        raise Malformed(Reason("calls-others", one_line(f"its third part is not empty: {_names(body[2])}")))
    # Views have none of these. Celery would acknowledge an expired message, and the message would be lost.
    for name in ("eta", "expires", "timelimit"):
        if headers.get(name) not in (None, [None, None]):
            raise _undecodable(f"it has a header {name!r}")
    return body[0], body[1]


def _undecodable(why: str) -> Malformed:
    return Malformed(Reason("undecodable", one_line(why)))


def _is_empty(embedded: Any) -> bool:
    if not isinstance(embedded, dict):
        return embedded is None
    return EMBEDDED.issuperset(embedded) and not any(embedded.values())


def _names(embedded: Any) -> str:
    found = embedded if isinstance(embedded, dict) else [type(embedded).__name__]
    return ", ".join(name for name in found if isinstance(name, str))


def decompress_nothing() -> None:
    """Make messages with a `compression` header undecodable in this process, from now on.

    kombu would decompress them before any check, and a few kilobytes can grow until they use all memory. Our services
    send no compressed messages.
    """
    for name in compression.encoders():
        compression.register(_refuse, _refuse, name)


def _refuse(_body: Any) -> Any:
    raise ValueError("compressed messages are not accepted")


def celery_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that Celery gets to see: some texts, and how often the message was redriven.

    Celery acts on many others: `callbacks`, `chain`, `group`, `timelimit`, `stamps`, `ignore_result`, `retries`, ...
    """
    texts = {name: headers[name] for name in TEXTS if isinstance(headers.get(name), str)}
    return {name: one_line(text) for name, text in texts.items()} | {REDRIVEN: count_in(headers, REDRIVEN)}


def count_in(headers: Mapping[str, Any], name: str, most: int = MOST_REDRIVES) -> int:
    """Return a count from a header. 0 if it is not a positive number: a stranger may have written any header."""
    count = headers.get(name)
    return min(count, most) if isinstance(count, int) and not isinstance(count, bool) and count > 0 else 0


def is_forged(headers: Mapping[str, Any]) -> bool:
    """Return whether headers about earlier deaths have a shape that RabbitMQ never writes.

    If RabbitMQ 3.10 is to dead-letter such a message, it stops all dead-lettering of that queue for good.
    """
    if UNREADABLE in headers:
        return True  # they cannot be read
    for name, value in headers.items():
        if name == "x-death":
            if not (isinstance(value, list) and all(map(_is_death, value))):
                return True
        elif name.startswith(DEATHS) and not isinstance(value, str):
            return True
    return False


def _is_death(note: Any) -> bool:
    return (
        isinstance(note, dict)
        and all(isinstance(note.get(name), kind) for name, kind in DEATH.items())
        and all(isinstance(key, str) for key in note["routing-keys"])
    )


def last_death(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the broker's latest `x-death` entry: reason, queue, count, time. Empty if the message never died."""
    deaths = headers.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths else {}
    return latest if isinstance(latest, dict) else {}


def without_past(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers as at the first publish.

    Without the broker's notes: RabbitMQ 4.3 would continue its old delivery count. Without CC and BCC: RabbitMQ would
    route copies to other queues. py-amqp can receive values that it cannot send; they become text.
    """
    gone = {KIND, DETAIL, WHEN, ALONE_SINCE, "CC", "BCC"}
    return {
        name: _as_amqp_accepts_it(value)
        for name, value in headers.items()
        if name not in gone and not name.startswith(BROKERS_HEADERS)
    }


def _as_amqp_accepts_it(value: Any, depth: int = 0) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) <= LARGEST_NUMBER else str(value)
    if value is None or isinstance(value, bool | float | str | bytes):
        return value
    if depth < DEEPEST and isinstance(value, list):
        return [_as_amqp_accepts_it(item, depth + 1) for item in value]
    if depth < DEEPEST and isinstance(value, dict):
        return {name: _as_amqp_accepts_it(item, depth + 1) for name, item in value.items()}
    return one_line(value)
