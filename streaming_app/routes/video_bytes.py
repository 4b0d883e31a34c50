"""`GET /videos/<id>/stream` as a Flask route, for any WSGI server. `rsgi` gives the same answers in its own way."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from flask import Blueprint, Response, request

from service import metrics
from streaming_app.dependencies import services
from streaming_app.routes.problems import problem
from streaming_app.videos.byte_ranges import METHODS, File, Headers, Reply, answer, hand_over
from streaming_app.videos.catalogue import Video
from streaming_app.videos.library_files import OpenFile

blueprint = Blueprint("video_bytes", __name__)

#: Bytes read at a time: large enough for a disk, and small enough to fit a thousand streams into memory.
BLOCK_BYTES = 256 * 1024


@blueprint.route("/videos/<video_id>/stream", methods=METHODS, provide_automatic_options=False)
def stream(video_id: str) -> Response:
    """Answer with the bytes of a video, or a range of them."""
    catalogue = services().catalogue
    video = catalogue.get(video_id)
    file = catalogue.open(video) if video else None
    if video is None or file is None:
        return refusal(video_id, None)
    proxy = services().settings.behind_proxy
    reply = reply_for(video, file, request.method, request.headers, behind_proxy=proxy)
    if reply.detail:
        return refusal(video_id, reply)
    authorization = request.headers.get("Authorization")
    if authorization and "playback" not in request.args and reply.end > reply.start:
        services().stream_views.note(authorization, video_id)
    metrics.streaming().video_bytes.labels(reply.sent_by).inc(reply.end - reply.start)
    blocks = () if reply.by_proxy else _blocks(file.path, reply.start, reply.end)
    return Response(blocks, reply.status, reply.headers)


def refusal(video_id: str, reply: Reply | None) -> Response:
    """Return the problem to answer with: there is no such video, or the reply has a `detail`."""
    if reply is None:
        return problem(HTTPStatus.NOT_FOUND, f"No video {video_id!r} in the catalogue.")
    return problem(reply.status, reply.detail, dict(reply.headers))


def reply_for(video: Video, opened: OpenFile, method: str, headers: Headers, *, behind_proxy: bool) -> Reply:
    """Decide the answer for the file as it is now."""
    file = File(video.id, opened.size_bytes, opened.mtime_ns, video.content_type)
    # The proxy gets a path without links, and follows no links (disable_symlinks in deploy/nginx/nginx.conf).
    return hand_over(method, headers, file, str(opened.real_path)) if behind_proxy else answer(method, headers, file)


def _blocks(path: str, start: int, end: int) -> Iterator[bytes]:
    with Path(path).open("rb") as file:
        file.seek(start)
        # If the file has become shorter meanwhile, the stream ends early, which the client notices.
        while start < end and (block := file.read(min(BLOCK_BYTES, end - start))):
            start += len(block)
            yield block
