"""`GET /videos/<id>/stream` as a plain Flask route, for any WSGI server; `rsgi` gives the same answers its own way."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from flask import Blueprint, Response, request

from streaming_app.catalogue import Video
from streaming_app.problems import problem
from streaming_app.services import services
from streaming_app.streaming import METHODS, File, Headers, Reply, answer, hand_over
from view_events import metrics

blueprint = Blueprint("video_bytes", __name__)

#: Bytes read at a time: large enough for a disk, small enough that a thousand streams fit into memory.
BLOCK_BYTES = 256 * 1024


@blueprint.route("/videos/<video_id>/stream", methods=METHODS, provide_automatic_options=False)
def stream(video_id: str) -> Response:
    """The bytes of a video, or a range of them."""
    video = services().catalogue.get(video_id)
    proxy = services().settings.behind_proxy
    reply = reply_for(video, request.method, request.headers, behind_proxy=proxy) if video else None
    if video is None or reply is None or reply.detail:
        return refusal(video_id, reply)
    authorization = request.headers.get("Authorization")
    if authorization and "playback" not in request.args and reply.end > reply.start:
        services().stream_views.note(authorization, video_id)
    metrics.streaming().video_bytes.labels(reply.sent_by).inc(reply.end - reply.start)
    blocks = () if reply.by_proxy else _blocks(video.path, reply.start, reply.end)
    return Response(blocks, reply.status, reply.headers)


def refusal(video_id: str, reply: Reply | None) -> Response:
    """The problem to answer with when there is no such video, or when the reply has a `detail`."""
    if reply is None:
        return problem(HTTPStatus.NOT_FOUND, f"No video {video_id!r} in the catalogue.")
    return problem(reply.status, reply.detail, dict(reply.headers))


def reply_for(video: Video, method: str, headers: Headers, *, behind_proxy: bool) -> Reply | None:
    """What to answer for the file as it is now; None when it is not there any more."""
    try:
        status = video.path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    file = File(video.id, status.st_size, status.st_mtime_ns, video.content_type)
    return hand_over(method, headers, file, str(video.path)) if behind_proxy else answer(method, headers, file)


def _blocks(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        # A file that has become shorter meanwhile ends the stream early, which the client sees.
        while start < end and (block := file.read(min(BLOCK_BYTES, end - start))):
            start += len(block)
            yield block
