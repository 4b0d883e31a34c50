"""A request with view events: decoded, checked, and every bad field named.

Everything the database could refuse is refused here, at the edge, so that a message in the queue can be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID, uuid4

import msgspec
from msgspec import Meta, Struct

from streaming_app.auth import AuthError, Caller
from view_events.event import RETENTION, Kind, ViewEvent, id_ms, new_event_id

#: Events in one request. Bigger uploads gain nothing: the publisher joins requests anyway.
MAX_EVENTS = 1_000
#: How far a client's clock may run ahead in an id.
MAX_AHEAD = timedelta(hours=24)
UUID_VERSION = 7

#: A week: longer than any video.
Seconds = Annotated[float, Meta(ge=0, le=604_800)]
#: RFC 3339 with its offset: "yesterday at nine" is no time without one.
Time = Annotated[datetime, Meta(tz=True)]
VideoId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,128}\Z")]
#: No control characters: PostgreSQL takes no NUL in a text, logs and terminals want none of the others.
ViewerId = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]


class View(Struct, frozen=True, kw_only=True, gc=False):
    """One view event as a client sends it."""

    kind: Kind
    video_id: VideoId
    position_s: Seconds
    event_id: UUID | None = None
    playback_id: UUID | None = None
    played_from_s: Seconds | None = None
    at: Time | None = None
    sent_at: Time | None = None
    viewer_id: ViewerId | None = None


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong: which event of the request, which field of it, and why."""

    index: int | None
    field: str | None
    message: str


class NotJson(Exception):
    """The body is no JSON. Raised by `decode`; answered with 400."""


class Unprocessable(Exception):
    """Some fields are wrong. Raised by `decode` and `check`; answered with 422 and all of them; nothing is recorded."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(errors)
        self.errors = errors


_view = msgspec.json.Decoder(View)
_views = msgspec.json.Decoder(list[View])
_anything = msgspec.json.Decoder()


def decode(body: bytes, *, lines: bool = False) -> list[View]:
    """The events in a body: one JSON object, an array of them, or one a line. Raises NotJson, Unprocessable."""
    documents = [line for line in body.splitlines() if line.strip()] if lines else [body]
    try:
        views = [view for document in documents for view in _typed(document, lines=lines)]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise Unprocessable(*_every_error(_untyped(documents, lines=lines))) from None
    if not 1 <= len(views) <= MAX_EVENTS:
        raise Unprocessable(FieldError(None, None, f"{len(views):,} events; expected 1 to {MAX_EVENTS:,}"))
    return views


def _typed(document: bytes, *, lines: bool) -> list[View]:
    is_array = not lines and document.lstrip()[:1] == b"["
    return _views.decode(document) if is_array else [_view.decode(document)]


def _untyped(documents: Sequence[bytes], *, lines: bool) -> list[Any]:
    try:
        values = [_anything.decode(document) for document in documents]
    except RecursionError:
        raise NotJson("The body is nested too deep.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotJson(f"The body is not JSON: {error}.") from None
    return values if lines or not isinstance(values[0], list) else values[0]


def _every_error(documents: Sequence[Any]) -> Iterator[FieldError]:
    """Every bad field. The decoder stops at the first one; here each field is put to its type by itself."""
    for index, document in enumerate(documents[:MAX_EVENTS]):
        if not isinstance(document, dict):
            yield FieldError(index, None, "Expected an object")
            continue
        for wanted in msgspec.structs.fields(View):
            if wanted.required and wanted.name not in document:
                yield FieldError(index, wanted.name, "Required")
            elif wanted.name in document:
                try:
                    msgspec.convert(document[wanted.name], wanted.type)
                except msgspec.ValidationError as error:
                    yield FieldError(index, wanted.name, str(error))


def check(
    views: Sequence[View], caller: Caller, now: datetime, known: Callable[[str], object], trace_id: str | None = None
) -> list[ViewEvent]:
    """The events as they will be stored. Raises Unprocessable with every error; AuthError (403) for another's id.

    `known` tells whether the catalogue has a video; `now` is the server's clock, with its zone.
    """
    if not caller.ingest and any(view.viewer_id not in {None, caller.viewer_id} for view in views):
        raise AuthError(403, "`viewer_id` is for ingest tokens: nobody records for another viewer.")
    videos = {video_id for video_id in {view.video_id for view in views} if known(video_id)}
    earliest, latest = id_ms(now - RETENTION), id_ms(now + MAX_AHEAD)
    errors = [
        FieldError(index, field, message)
        for index, view in enumerate(views)
        for field, message in _faults(view, caller, videos, earliest, latest)
    ]
    sent = [view.event_id for view in views if view.event_id is not None]
    if len(set(sent)) < len(sent):
        errors += _twice(views)
    if errors:
        raise Unprocessable(*errors)
    return [_event(view, caller, now, trace_id) for view in views]


def _faults(
    view: View, caller: Caller, videos: Container[str], earliest: int, latest: int
) -> Iterator[tuple[str, str]]:
    """What the types cannot say: (field, message) for each fault. `earliest`, `latest`: of ids, milliseconds."""
    if caller.ingest and view.viewer_id is None:
        yield "viewer_id", "Required with an ingest token"
    if view.video_id not in videos:
        yield "video_id", f"No video {view.video_id!r} in the catalogue"
    if view.played_from_s is not None and view.played_from_s > view.position_s:
        yield "played_from_s", f"{view.played_from_s} is after position_s, {view.position_s}"
    if view.event_id is not None and (fault := _id_fault(view.event_id, earliest, latest)):
        yield "event_id", fault


def _id_fault(event_id: UUID, earliest: int, latest: int) -> str | None:
    number = event_id.int
    # Version 7, variant 0b10 (RFC 9562). UUID.version says the same, and takes longer than all the rest.
    if (number >> 76 & 0xF, number >> 62 & 0b11) != (UUID_VERSION, 0b10):
        return f"Expected a UUIDv7, got version {event_id.version}"
    at_ms = number >> 80
    if at_ms >= latest:
        return "Its time is more than 24 hours ahead"
    if at_ms < earliest:
        return f"Its time is more than {RETENTION.days} days ago"
    return None


def _twice(views: Sequence[View]) -> Iterator[FieldError]:
    seen: set[UUID] = set()
    for index, view in enumerate(views):
        if view.event_id in seen:
            yield FieldError(index, "event_id", f"{view.event_id} stands twice in this request")
        elif view.event_id is not None:
            seen.add(view.event_id)


def _event(view: View, caller: Caller, now: datetime, trace_id: str | None) -> ViewEvent:
    viewer_id = caller.viewer_id or view.viewer_id
    assert viewer_id is not None  # noqa: S101 (check saw to it)
    return ViewEvent(
        event_id=view.event_id or new_event_id(),
        viewer_id=viewer_id,
        video_id=view.video_id,
        playback_id=view.playback_id or uuid4(),
        kind=view.kind,
        position_s=view.position_s,
        played_from_s=view.played_from_s,
        at=_when(view, now),
        received_at=now,
        trace_id=trace_id,
    )


def _when(view: View, now: datetime) -> datetime:
    """When it happened, by the server's clock: never later than now, and less the skew that `sent_at` shows."""
    if view.at is None:
        return now
    skew = now - view.sent_at if view.sent_at is not None else timedelta()
    try:
        return min(view.at.astimezone(UTC) + skew, now)
    except OverflowError:  # a year below 1 or above 9999
        return now
