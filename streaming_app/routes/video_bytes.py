"""What `GET /videos/<id>/stream` answers. `rsgi` sends the bytes; Flask only refuses."""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, Response

from streaming_app.routes.problems import problem
from streaming_app.videos.byte_ranges import METHODS, File, Headers, Reply, answer, hand_over
from streaming_app.videos.catalogue import Video
from streaming_app.videos.library_files import OpenFile

blueprint = Blueprint("video_bytes", __name__)


@blueprint.route("/videos/<video_id>/stream", methods=METHODS, provide_automatic_options=False)
def not_a_video(video_id: str) -> Response:
    """Answer 404. `rsgi` passes on only those ids that no video can have, such as `a b`.

    It also passes on all other methods. Because this route names GET and HEAD, Flask answers those with 405.
    """
    return refusal(video_id, None)


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
