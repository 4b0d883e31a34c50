"""Why a message is a dead letter: what a worker or the broker wrote on it, or else what is seen in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from kombu.message import Message

from view_events.event import TASK, VERSION, UnknownEventVersion, decode

#: Headers that a worker writes on what it puts into `views.dead` itself.
KIND, DETAIL, WHEN = "refused", "refused_because", "refused_at"
#: Header: how often `flixtrail dead redrive` has sent it again.
REDRIVEN = "redriven"
#: Header of a message in `history.alone`: since when a worker tries it there (history_worker/alone.py).
ALONE_SINCE = "alone_since"
#: Headers of the broker about an earlier life of a message. One that is published anew begins a new one.
BROKERS_HEADERS = ("x-death", "x-delivery-count", "x-acquired-count", "x-first-death-", "x-last-death-")
ACCEPTED = frozenset({"application/json"})
LONGEST_DETAIL = 300
#: args, kwargs, embedded; and nothing of what is in them.
_OUTLINE = msgspec.json.Decoder(tuple[list[msgspec.Raw], dict[str, msgspec.Raw], dict[str, Any] | None])

#: What can be wrong with a dead letter, and what to do about it.
KINDS = {
    "undecodable": "not JSON, or not a Celery message",
    "unknown-task": "no worker knows a task of this name",
    "unknown-version": "its events are newer than the workers: upgrade them, then redrive",
    "no-event": "a field is missing or has the wrong type",
    "database": "PostgreSQL refuses the event for good",
    "too-old": "its id is older than what is kept: whether it was stored before is not known any more",
    "delivery-limit": "the workers that held it died, also when it was tried alone",
    "failed": "the task raised an error; a worker's log has it",
    "expired": "it waited longer than a policy of the broker lets it",
}


class Reason(NamedTuple):
    """One of KINDS, and what exactly."""

    kind: str
    detail: str


class Malformed(Exception):
    """A message is nothing that a worker can run: says as what it counts, and why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"{reason.kind}: {reason.detail}")
        self.reason = reason


def one_line(text: object) -> str:
    """The first line, not too long, as UTF-8 can carry it: headers and tables have little room."""
    line = (str(text).strip().splitlines() or [""])[0][:LONGEST_DETAIL]
    return line.encode(errors="replace").decode()


def reason(message: Message) -> Reason:
    """Why this message, from `views.dead`, was given up."""
    headers = message.headers
    if KIND in headers:
        return Reason(str(headers[KIND]), str(headers.get(DETAIL, "")))
    seen = fault(message) or fault_of_events(message)
    if seen:
        return seen
    death = last_death(headers)
    if death.get("reason") == "delivery_limit":
        return Reason("delivery-limit", f"given back too often in {death.get('queue')}")
    if death.get("reason") in {"rejected", None}:
        return Reason("failed", "the task raised an error; a worker's log has it")
    return Reason(str(death["reason"]), f"in {death.get('queue')}")


def fault(message: Message) -> Reason | None:
    """What is wrong with the message as a whole. None: a worker can run it, and sees to its events one by one."""
    try:
        _, version = events(message)
        decode([], version)
    except Malformed as malformed:
        return malformed.reason
    except UnknownEventVersion as unknown:
        return Reason("unknown-version", one_line(unknown))
    return None


def fault_of_events(message: Message) -> Reason | None:
    """What is wrong with the first of its events that is none, in a message without another fault."""
    try:
        decode(*events(message))
    except msgspec.ValidationError as invalid:
        return Reason("no-event", one_line(invalid))
    return None


def events(message: Message) -> tuple[list[Any], Any]:
    """The events of a message as they came, and their version. Raises Malformed for what is no message of ours."""
    args, kwargs = arguments(message)
    if message.headers["task"] != TASK:
        raise Malformed(Reason("unknown-task", one_line(message.headers["task"])))
    found = args[0] if args else kwargs.get("events")
    if not isinstance(found, list):
        raise Malformed(Reason("no-event", f"expected a list of events, got {type(found).__name__}"))
    return found, kwargs.get("version", args[1] if len(args) > 1 else VERSION)


def how_many(body: Any) -> int:
    """How many events the body of a message carries, for figures; 1 where that cannot be told."""
    try:
        found = json.loads(body)[0][0]
    except (TypeError, ValueError, LookupError, RecursionError):
        return 1
    return len(found) if isinstance(found, list) else 1


def look(message: Message) -> None:
    """See that a worker can run the message. Raises Malformed, as `arguments` does.

    In a tenth of the time: its events are passed over, not decoded. A process of the pool does that.
    """
    if message.content_type in ACCEPTED and "compression" not in message.headers:
        # `arguments` tells what is wrong, if anything is.
        with suppress(msgspec.MsgspecError, RecursionError, TypeError, UnicodeError):
            # Celery asks the message for its payload, and never looks further into it than this.
            message._decoded_cache = list(_OUTLINE.decode(message.body))  # noqa: SLF001
    arguments(message)


def look_closely(message: Message) -> None:
    """See that every byte of it can be decoded, also after `look`. Raises Malformed."""
    message._decoded_cache = None  # noqa: SLF001
    arguments(message)


def arguments(message: Message) -> tuple[list[Any], dict[str, Any]]:
    """What a message calls its task with (Celery's protocol 2). Raises Malformed (undecodable).

    Celery itself, up to 5.7 at least, lets some of these errors end the whole worker. Its decoding is kept in the
    message and not done again.
    """
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
    # Views have none of these. Celery would acknowledge what has expired, and it were gone.
    for name in ("eta", "expires", "timelimit"):
        if headers.get(name) not in (None, [None, None]):
            raise _undecodable(f"it has a header {name!r}")
    return body[0], body[1]


def _undecodable(why: str) -> Malformed:
    return Malformed(Reason("undecodable", one_line(why)))


def last_death(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """The broker's note on the latest death: reason, queue, count, time. Empty when it never died."""
    deaths = headers.get("x-death")
    latest = deaths[0] if isinstance(deaths, list) and deaths else {}
    return latest if isinstance(latest, dict) else {}


def without_past(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers as at the first publishing: RabbitMQ 4.3 would go on counting deliveries where it had stopped."""
    ours = {KIND, DETAIL, WHEN, ALONE_SINCE}
    return {name: value for name, value in headers.items() if name not in ours and not name.startswith(BROKERS_HEADERS)}
