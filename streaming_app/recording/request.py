"""Decodes and checks a request with view events, and names every bad field.

Everything that the database could refuse is refused here. So a message in the queue can be stored.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Annotated, Any
from uuid import UUID, uuid4

import msgspec
from msgspec import Meta, Struct

from streaming_app.access.auth import AuthError, Caller
from streaming_app.recording.errors import FieldError, NotJson, Unprocessable
from view_events.event import RETENTION, VIDEO, VIEWER, Kind, ViewEvent, id_ms, new_event_id

#: Events in one request. Larger requests gain nothing: the publisher joins requests anyway.
MAX_EVENTS = 1_000
#: Errors in one answer. Sending thousands would block the event loop for too long.
MAX_ERRORS = 20
#: Characters of one error, because the decoder repeats the bad value.
MAX_MESSAGE = 200
#: Objects, arrays and commas in a body that is searched for every error. A thousand events have 10,000.
MAX_PARTS = 20_000
#: Lines of an NDJSON body, including empty ones.
MAX_LINES = 10 * MAX_EVENTS
#: How far a client's clock may run ahead in an id.
MAX_AHEAD = timedelta(hours=24)
UUID_VERSION = 7

#: A week: longer than any video.
LONGEST_S = 604_800
Seconds = Annotated[float, Meta(ge=0, le=LONGEST_S)]
#: Seconds that a position may be past the end of a video. A recording grows, and the library reads it only now and
#: then.
GROWS_S = 3_600
#: RFC 3339 with its offset, because a time without an offset is ambiguous.
Time = Annotated[datetime, Meta(tz=True)]
VideoId = Annotated[str, Meta(pattern=rf"^{VIDEO.pattern}\Z")]
#: With the lengths, an error says that the name is too long.
ViewerId = Annotated[str, Meta(min_length=1, max_length=128, pattern=rf"^{VIEWER.pattern}\Z")]


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


_view = msgspec.json.Decoder(View)
_views = msgspec.json.Decoder(list[View])
_anything = msgspec.json.Decoder()
#: Checks JSON without making objects of it.
_is_json = msgspec.json.Decoder(msgspec.Raw)
#: Made once, because it takes a quarter of a millisecond.
_fields = msgspec.structs.fields(View)


def decode(body: bytes, *, lines: bool = False, limit: int = MAX_EVENTS) -> list[View]:
    """Decode the events in a body: one JSON object, an array of objects, or one per line. Raises NotJson,
    Unprocessable.

    `limit`: how many events the body may have.
    """
    # Each event has this key. (Inside a text the quotes would be escaped.) Counting is much faster than decoding.
    if (count := body.count(b'"video_id"')) > limit:
        raise _wrong_number(count, limit)
    documents = _lines(body, limit) if lines else [body]
    try:
        views = [view for document in documents for view in _typed(document, lines=lines)]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if sum(map(body.count, (b"{", b"[", b","))) > MAX_PARTS:
            _parsed(_is_json, documents)
            raise Unprocessable(FieldError(None, None, str(error)[:MAX_MESSAGE])) from None
        values = _parsed(_anything, documents)
        raise _every_error(values if lines or not isinstance(values[0], list) else values[0], limit) from None
    if not 1 <= len(views) <= limit:
        raise _wrong_number(len(views), limit)
    return views


def _lines(body: bytes, limit: int) -> list[bytes]:
    count = body.count(b"\n") + body.count(b"\r")
    found = [line for line in body.splitlines() if line.strip()] if count <= MAX_LINES else []
    if count > MAX_LINES or len(found) > limit:
        raise _wrong_number(len(found) or count, limit)
    return found


def _wrong_number(count: int, limit: int) -> Unprocessable:
    return Unprocessable(FieldError(None, None, f"{count:,} events; expected 1 to {limit:,}"))


def _typed(document: bytes, *, lines: bool) -> list[View]:
    is_array = not lines and document.lstrip()[:1] == b"["
    return _views.decode(document) if is_array else [_view.decode(document)]


def _parsed(decoder: msgspec.json.Decoder[Any], documents: Sequence[bytes]) -> list[Any]:
    """Decode the documents with this decoder. Raises NotJson."""
    try:
        return [decoder.decode(document) for document in documents]
    except RecursionError:
        raise NotJson("The body is nested too deep.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotJson(f"The body is not JSON: {error}.") from None


def _every_error(documents: Sequence[Any], limit: int) -> Unprocessable:
    """Find the first bad fields. The decoder stops at the first error, so here each field is checked
    against its type.
    """
    if len(documents) > limit:
        return _wrong_number(len(documents), limit)
    errors: list[FieldError] = []
    more_events = 0
    for index, document in enumerate(documents):
        if len(errors) < MAX_ERRORS:
            errors += islice(_errors_of(index, document), MAX_ERRORS - len(errors))
        else:
            more_events += not _is_view(document)
    return Unprocessable(*errors, more_events=more_events)


def _errors_of(index: int, document: object) -> Iterator[FieldError]:
    if not isinstance(document, dict):
        yield FieldError(index, None, "Expected an object")
        return
    for wanted in _fields:
        if wanted.required and wanted.name not in document:
            yield FieldError(index, wanted.name, "Required")
        elif wanted.name in document:
            try:
                msgspec.convert(document[wanted.name], wanted.type)
            except msgspec.ValidationError as error:
                yield FieldError(index, wanted.name, str(error)[:MAX_MESSAGE])


def _is_view(document: object) -> bool:
    try:
        msgspec.convert(document, View)
    except msgspec.ValidationError:
        return False
    return True


def check(
    views: Sequence[View],
    caller: Caller,
    now: datetime,
    known: Callable[[str], object],
    trace_id: str | None = None,
    *,
    duration_s: Callable[[str], float | None] = lambda _video_id: None,
) -> list[ViewEvent]:
    """Check the views and return the events to store. Raises Unprocessable with every error, or AuthError (403) for
    another viewer's id.

    `known` says whether the catalogue has a video, `duration_s` how long it is (None: unknown). `now` is the server's
    time, with its zone. A position far past the end becomes the end: no player is there, and refusing it would lose the
    view.
    """
    if not caller.ingest and any(view.viewer_id not in {None, caller.viewer_id} for view in views):
        raise AuthError(403, "`viewer_id` is for ingest tokens: nobody records for another viewer.")
    videos = {video_id for video_id in {view.video_id for view in views} if known(video_id)}
    earliest, latest = id_ms(now - RETENTION), id_ms(now + MAX_AHEAD)
    faults: Iterator[FieldError] = (
        FieldError(index, field, message)
        for index, view in enumerate(views)
        for field, message in _faults(view, caller, videos, earliest, latest)
    )
    errors = list(islice(faults, MAX_ERRORS))
    sent = [view.event_id for view in views if view.event_id is not None]
    if len(set(sent)) < len(sent):
        faults = chain(faults, _twice(views))
        errors += islice(faults, MAX_ERRORS - len(errors))
    if errors:
        more_events = len({fault.index for fault in faults})
        raise Unprocessable(*errors, more_events=more_events)
    ends = {video_id: _end(duration_s(video_id)) for video_id in videos}
    return [_event(view, caller, now, trace_id, ends[view.video_id]) for view in views]


def _end(duration_s: float | None) -> float:
    return LONGEST_S if duration_s is None else duration_s + GROWS_S


def _faults(
    view: View, caller: Caller, videos: Container[str], earliest: int, latest: int
) -> Iterator[tuple[str, str]]:
    """Yield (field, message) for each error that the types cannot express. `earliest`, `latest`: limits of ids, in
    milliseconds.
    """
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
    # Version 7, variant 0b10 (RFC 9562). UUID.version says the same, but takes longer than all other checks.
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


def _event(view: View, caller: Caller, now: datetime, trace_id: str | None, end_s: float) -> ViewEvent:
    viewer_id = caller.viewer_id or view.viewer_id
    assert viewer_id is not None  # noqa: S101 (check saw to it)
    return ViewEvent(
        event_id=view.event_id or new_event_id(),
        viewer_id=viewer_id,
        video_id=view.video_id,
        playback_id=view.playback_id or uuid4(),
        kind=view.kind,
        position_s=min(view.position_s, end_s),
        played_from_s=None if view.played_from_s is None else min(view.played_from_s, end_s),
        at=_when(view, now),
        received_at=now,
        trace_id=trace_id,
    )


def _when(view: View, now: datetime) -> datetime:
    """Return when the view happened, by the server's clock. Corrects the clock skew that `sent_at` shows; never later
    than now.
    """
    if view.at is None:
        return now
    skew = now - view.sent_at if view.sent_at is not None else timedelta()
    try:
        return min(view.at.astimezone(UTC) + skew, now)
    except OverflowError:  # a year below 1 or above 9999
        return now
