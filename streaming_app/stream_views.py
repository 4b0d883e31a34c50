"""Views of clients that only stream, with a token and no page that reports: one `started` a viewer, video, hour."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from datetime import UTC, datetime
from uuid import UUID

import structlog

from streaming_app.auth import AuthError, Tokens, bearer
from streaming_app.errors import NotAccepted
from streaming_app.publisher import Publisher
from streaming_app.tracing import new_trace_id
from view_events.event import ViewEvent

log = structlog.get_logger(__name__)

#: What this process has sent already. It only saves messages: the derived id is what makes them count once.
REMEMBERED = 10_000


class StreamViews:
    """Records that somebody streams. The bytes never wait for it, and it never raises.

    The event's id is derived from viewer, video and hour: ranges, repeats and other processes cannot inflate it.
    """

    def __init__(self, tokens: Tokens, publisher: Publisher) -> None:
        self._tokens = tokens
        self._publisher = publisher
        self._sent: OrderedDict[UUID, None] = OrderedDict()

    def note(self, authorization: str, video_id: str) -> None:
        """A client with this Authorization header asked for bytes of a video that is in the catalogue."""
        try:
            viewer_id = self._tokens.read(bearer(authorization)).viewer_id
            if viewer_id is None:
                return
            event = started(viewer_id, video_id, datetime.now(UTC))
            if event.event_id not in self._sent:
                sent = self._publisher.submit([event])
                self._remember(event.event_id)
                # Neither confirmed nor stored: the next range that the client asks for tries again.
                sent.add_done_callback(lambda done: done.exception() and self._sent.pop(event.event_id, None))
        except (AuthError, NotAccepted) as reason:
            log.debug("streaming not noted", reason=str(reason))

    def _remember(self, event_id: UUID) -> None:
        self._sent[event_id] = None
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)


def started(viewer_id: str, video_id: str, now: datetime) -> ViewEvent:
    """The `started` of this hour. Same viewer, video and hour: same ids, but for the trace id."""
    hour = now.replace(minute=0, second=0, microsecond=0)
    return ViewEvent(
        event_id=derived_id(hour, "event", viewer_id, video_id),
        viewer_id=viewer_id,
        video_id=video_id,
        playback_id=derived_id(hour, "playback", viewer_id, video_id),
        kind="started",
        position_s=0,
        at=now,
        received_at=now,
        trace_id=new_trace_id(),
    )


def derived_id(time: datetime, *names: str) -> UUID:
    """A UUIDv7 whose random bits are a hash of the names: made again from the same, it is the same (RFC 9562, 5.7)."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    random = int.from_bytes(digest[:10])
    milliseconds = int(time.timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | (random >> 64 & 0xFFF) << 64 | 0b10 << 62 | random & (1 << 62) - 1)
