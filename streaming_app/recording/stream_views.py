"""Records views of clients that only stream: they have a token, but no page that reports views.

Such a client gets one `started` event for each viewer, video and hour.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

import structlog

from service.tracing import new_trace_id
from streaming_app.access.auth import AuthError, Tokens, bearer
from streaming_app.recording.errors import NotAccepted
from streaming_app.recording.publisher import Publisher
from view_events.event import ViewEvent

log = structlog.get_logger(__name__)

#: Events that this process remembers as sent. This only saves messages: the derived id is what makes them count once.
REMEMBERED = 10_000


class StreamViews:
    """Records that somebody streams. Sending the bytes never waits for it, and it never raises an error.

    The event's id is derived from viewer, video and hour. So range requests, repeats and other processes do not count
    again.
    """

    def __init__(self, tokens: Tokens, publisher: Publisher, secret_key: str) -> None:
        self._tokens = tokens
        self._key = sha256(b"flixtrail.stream_views\0" + secret_key.encode()).digest()
        self._publisher = publisher
        self._sent: OrderedDict[UUID, None] = OrderedDict()

    def note(self, authorization: str, video_id: str) -> None:
        """Record a request for a video's bytes, made with this Authorization header. The video is in the catalogue."""
        try:
            viewer_id = self._tokens.read(bearer(authorization)).viewer_id
            if viewer_id is None:
                return
            event = started(viewer_id, video_id, datetime.now(UTC), self._key)
            if event.event_id not in self._sent:
                sent = self._publisher.submit([event])
                self._remember(event.event_id)
                # If it was neither confirmed nor stored, the client's next range request tries again.
                sent.add_done_callback(lambda done: done.exception() and self._sent.pop(event.event_id, None))
        except (AuthError, NotAccepted) as reason:
            log.debug("streaming not noted", reason=str(reason))

    def _remember(self, event_id: UUID) -> None:
        self._sent[event_id] = None
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)


def started(viewer_id: str, video_id: str, now: datetime, key: bytes) -> ViewEvent:
    """Make the `started` event of this hour. The same viewer, video, hour and key give the same ids, except the trace
    id.
    """
    hour = now.replace(minute=0, second=0, microsecond=0)
    return ViewEvent(
        event_id=derived_id(hour, "event", viewer_id, video_id, key=key),
        viewer_id=viewer_id,
        video_id=video_id,
        playback_id=derived_id(hour, "playback", viewer_id, video_id, key=key),
        kind="started",
        position_s=0,
        at=now,
        received_at=now,
        trace_id=new_trace_id(),
    )


def derived_id(time: datetime, *names: str, key: bytes) -> UUID:
    """Make a UUIDv7 whose random bits are derived from the names. The same input gives the same id (RFC 9562, 5.7).

    Only the owner of the key can make it. Otherwise a stranger could record under this id first, and suppress the view.
    """
    digest = hmac.digest(key, "\0".join(names).encode(), "sha256")
    random = int.from_bytes(digest[:10])
    milliseconds = int(time.timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 0x7 << 76 | (random >> 64 & 0xFFF) << 64 | 0b10 << 62 | random & (1 << 62) - 1)
