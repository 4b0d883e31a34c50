"""A view event: "viewer V saw video X up to second S", as it travels from the streaming app to the history worker."""

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

#: The task that carries events, and the version of what it carries. A worker refuses a version that it does not know.
TASK = "history.record_views"
VERSION = 1

#: How long views are kept. An id says when its event happened, and older ones are refused: their rows may be gone, and
#: with them the knowledge that the id was stored before.
RETENTION = timedelta(days=400)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

#: What a viewer may be called: 1-128 characters, no control characters, nothing that UTF-8 cannot carry.
VIEWER = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}")


class UnknownEventVersion(Exception):
    """A message carries events of a version that this worker does not know: it is older than the streaming app."""


#: What stands in the place of a trace id in the logs, for events that have none.
NO_TRACE = "-"


class ViewEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One thing that happened in one playback. Checked by the streaming app; stored as one row of `view_events`."""

    event_id: UUID  #: UUIDv7; the idempotency key: one id is stored once, the first one wins
    viewer_id: str  #: 1-128 characters, no control characters
    video_id: str  #: 1-128 of [A-Za-z0-9._-]
    playback_id: UUID
    kind: Kind
    position_s: float  #: seconds into the video
    played_from_s: float | None = None  #: since here, up to `position_s`, it really played without a seek
    at: datetime  #: when it happened, by the server's clock
    received_at: datetime
    #: Of the request that it came with: 32 hexadecimal digits, for the logs. It is not stored. Programs of the version
    #: before neither send nor mind it.
    trace_id: str | None = None


def is_viewer(viewer_id: object) -> bool:
    """Whether somebody can be called that."""
    return isinstance(viewer_id, str) and VIEWER.fullmatch(viewer_id) is not None


def new_event_id() -> UUID:
    """A UUIDv7 of now: ids made one after another lie side by side in the primary key's index."""
    return UUID(int=uuid_utils.uuid7().int)


def event_id_time(event_id: UUID) -> datetime | None:
    """The time in a UUIDv7 (its first 48 bits, in milliseconds: RFC 9562, 5.7); None past the year 9999."""
    try:
        return datetime.fromtimestamp((event_id.int >> 80) / 1000, UTC)
    except (OverflowError, ValueError):
        return None


def first_id(at: datetime) -> UUID:
    """The smallest id that an event of that time can have: 48 bits of milliseconds, then zeros."""
    return UUID(int=id_ms(at) << 80)


def id_ms(at: datetime) -> int:
    """The milliseconds since 1970 that the id of an event of that time begins with."""
    return (at - EPOCH) // MILLISECOND


def encode(events: Sequence[ViewEvent]) -> list[dict[str, Any]]:
    """The events as the task's JSON argument: one object an event, named as the columns of the table."""
    return [msgspec.to_builtins(event) for event in events]


def decode(events: Iterable[object], version: int) -> list[ViewEvent]:
    """The events of a task's argument. Raises UnknownEventVersion, or msgspec.ValidationError for what is no event."""
    if version != VERSION:
        raise UnknownEventVersion(f"events of version {version!r}; this worker knows {VERSION}")
    return [msgspec.convert(event, ViewEvent, strict=False) for event in events]


class _Keywords(msgspec.Struct, forbid_unknown_fields=True):
    version: int = VERSION


class _Embedded(msgspec.Struct):
    """What Celery adds for tasks that call others. Ours do not."""

    callbacks: None = None
    errbacks: None = None
    chain: None = None
    chord: None = None


_MESSAGE = msgspec.json.Decoder(tuple[tuple[list[ViewEvent]], _Keywords, _Embedded])


def decode_message(body: bytes | str) -> list[ViewEvent]:
    """The events of a whole message, as the publisher sends it. Raises UnknownEventVersion; msgspec.DecodeError for
    everything else, also for what `decode` would take: bytes to events in one go, without a dictionary between.
    """
    (events,), keywords, _ = _MESSAGE.decode(body)
    if keywords.version != VERSION:
        raise UnknownEventVersion(f"events of version {keywords.version!r}; this worker knows {VERSION}")
    return events


def by_trace(events: Sequence[ViewEvent]) -> dict[str, list[str]]:
    """The ids of the events by their trace ids, for the logs: `{trace_id: [event_id, ...]}`."""
    # A fifth of what str() takes for each (docs/decisions/0008-trace.md).
    ids = msgspec.to_builtins([event.event_id for event in events])
    found: dict[str, list[str]] = {}
    for event, event_id in zip(events, ids, strict=True):
        found.setdefault(event.trace_id or NO_TRACE, []).append(event_id)
    return found


def trace_ids(events: Iterable[ViewEvent]) -> list[str]:
    """Those of a batch, each once, in the order of its events."""
    return list(dict.fromkeys(event.trace_id for event in events if event.trace_id))


def describe(events: Sequence[ViewEvent]) -> str:
    """A batch in a few words, for Flower and the logs: `<12 events: finished 1, progress 11>`."""
    counts = ", ".join(f"{kind} {count}" for kind, count in sorted(Counter(event.kind for event in events).items()))
    return f"<{len(events)} events: {counts}>"
