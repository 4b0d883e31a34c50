"""The view event: "viewer V saw video X up to second S", as it travels from the streaming app to the history worker."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec
import uuid_utils

Kind = Literal["started", "progress", "finished"]

#: The task that carries events, and the version of their format. A worker refuses an unknown version.
TASK = "history.record_views"
VERSION = 1

#: How long views are kept. An id says when its event happened, and older ids are refused: their rows may be gone, so
#: nobody can tell whether the id was stored before.
RETENTION = timedelta(days=400)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

#: A valid viewer id: 1-128 characters, nothing that UTF-8 cannot encode, no control characters. PostgreSQL refuses NUL
#: in a text, and the others harm logs and terminals.
VIEWER = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}")
#: A valid video id.
VIDEO = re.compile(r"[A-Za-z0-9._-]{1,128}")


class UnknownEventVersion(Exception):
    """A message has events of an unknown version: this worker is older than the streaming app."""


#: The logs have this instead of a trace id for events that have none.
NO_TRACE = "-"


class ViewEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One thing that happened in one playback. The streaming app checks it; one row of `view_events` stores it."""

    event_id: UUID  #: UUIDv7, the idempotency key: an id is stored once, and the first event with it wins
    viewer_id: str  #: 1-128 characters, no control characters
    video_id: str  #: 1-128 of [A-Za-z0-9._-]
    playback_id: UUID
    kind: Kind
    position_s: float  #: position in the video, in seconds
    played_from_s: float | None = None  #: from here to `position_s` the video played without a seek
    at: datetime  #: when it happened, by the server's clock
    received_at: datetime
    #: The trace id of the request that recorded the event: 32 hexadecimal digits, for the logs. It is not stored.
    #: Programs of the previous version neither send it nor need it.
    trace_id: str | None = None


def is_viewer(viewer_id: object) -> bool:
    """Return whether this is a valid viewer id."""
    return isinstance(viewer_id, str) and VIEWER.fullmatch(viewer_id) is not None


def new_event_id() -> UUID:
    """Make a UUIDv7 of the current time. Ids that are made in sequence are neighbours in the primary key's index."""
    return UUID(int=uuid_utils.uuid7().int)


def event_id_time(event_id: UUID) -> datetime | None:
    """Return the time in a UUIDv7 (first 48 bits, in milliseconds: RFC 9562, 5.7); None after the year 9999."""
    try:
        return datetime.fromtimestamp((event_id.int >> 80) / 1000, UTC)
    except (OverflowError, ValueError):
        return None


def first_id(at: datetime) -> UUID:
    """Return the smallest id that an event of that time can have: 48 bits of milliseconds, then zeros."""
    return UUID(int=id_ms(at) << 80)


def id_ms(at: datetime) -> int:
    """Return the milliseconds since 1970 at the beginning of the id of an event of that time."""
    return (at - EPOCH) // MILLISECOND


def encode(events: Sequence[ViewEvent]) -> list[dict[str, Any]]:
    """Encode events as the task's JSON argument: one object for each event, with the names of the table's columns."""
    return [msgspec.to_builtins(event) for event in events]


def decode(events: Iterable[object], version: int) -> list[ViewEvent]:
    """Decode the events in a task's argument.

    Raises UnknownEventVersion; msgspec.ValidationError for an invalid event.
    """
    if version != VERSION:
        raise UnknownEventVersion(f"events of version {version!r}; this worker knows {VERSION}")
    return [msgspec.convert(event, ViewEvent, strict=False) for event in events]


class _Keywords(msgspec.Struct, forbid_unknown_fields=True):
    version: int = VERSION


class _Embedded(msgspec.Struct):
    """What Celery adds to a task that calls other tasks. Ours call none."""

    callbacks: None = None
    errbacks: None = None
    chain: None = None
    chord: None = None


_MESSAGE = msgspec.json.Decoder(tuple[tuple[list[ViewEvent]], _Keywords, _Embedded])


def decode_message(body: bytes | str) -> list[ViewEvent]:
    """Decode the events of a whole message, as the publisher sends it.

    This goes from bytes to events in one step, without dictionaries in between. Raises UnknownEventVersion;
    msgspec.DecodeError for every other message, also for some that `decode` accepts.
    """
    (events,), keywords, _ = _MESSAGE.decode(body)
    if keywords.version != VERSION:
        raise UnknownEventVersion(f"events of version {keywords.version!r}; this worker knows {VERSION}")
    return events


def by_trace(events: Sequence[ViewEvent]) -> dict[str, list[str]]:
    """Group the ids of events by trace id, for the logs: `{trace_id: [event_id, ...]}`."""
    # This takes a fifth of the time of str() for each id (docs/decisions/0008-trace.md).
    ids = msgspec.to_builtins([event.event_id for event in events])
    found: dict[str, list[str]] = {}
    for event, event_id in zip(events, ids, strict=True):
        found.setdefault(event.trace_id or NO_TRACE, []).append(event_id)
    return found


def trace_ids(events: Iterable[ViewEvent]) -> list[str]:
    """Return the trace ids of a batch, each once, in the order of its events."""
    return list(dict.fromkeys(event.trace_id for event in events if event.trace_id))


def describe(events: Sequence[ViewEvent]) -> str:
    """Describe a batch briefly, for Flower and the logs: `<12 events: finished 1, progress 11>`."""
    counts = ", ".join(f"{kind} {count}" for kind, count in sorted(Counter(event.kind for event in events).items()))
    return f"<{len(events)} events: {counts}>"
