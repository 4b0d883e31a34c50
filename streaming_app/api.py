"""What can be read over HTTP: the library, and the caller's own history."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify, request, url_for

from streaming_app.catalogue import Video
from streaming_app.history_client import HistoryAway, Refused
from streaming_app.problems import problem
from streaming_app.services import services

blueprint = Blueprint("api", __name__)

#: What `GET /api/history` passes on to the history API.
HISTORY_PARAMETERS = ("cursor", "limit", "video_id")
#: Seconds after which asking again may help.
RETRY_AFTER_S = 5


@blueprint.get("/api/videos")
def videos() -> Response:
    """The library, by title."""
    return jsonify(videos=[_video(video) for video in services().catalogue.videos()])


@blueprint.get("/api/history")
def history() -> Response:
    """What the caller has watched, newest first."""
    viewer_id = services().tokens.caller(request).viewer()
    params = {name: request.args[name] for name in HISTORY_PARAMETERS if name in request.args}
    try:
        page = services().history.history(viewer_id, **params)
    except Refused as error:
        return problem(422, str(error))
    except HistoryAway:
        detail = "The history is away just now. Views are still being recorded."
        return problem(503, detail, {"Retry-After": str(RETRY_AFTER_S)})
    return jsonify(items=[_with_title(item) for item in page["items"]], next_cursor=page["next_cursor"])


@blueprint.post("/api/views/receipts")
def receipts() -> Response:
    """Which of the given event ids are stored: for those who send views for others and want proof (ingest tokens)."""
    if not services().tokens.caller(request).ingest:
        return problem(403, "Receipts are for ingest tokens.")
    body = request.get_json(silent=True)
    ids = body.get("event_ids") if isinstance(body, dict) else None
    if not isinstance(ids, list) or not all(isinstance(event_id, str) for event_id in ids):
        return problem(422, 'Expected {"event_ids": [...]}.')
    try:
        return jsonify(services().history.receipts(ids))
    except Refused as error:
        return problem(422, str(error))
    except HistoryAway:
        return problem(503, "The history is away just now.", {"Retry-After": str(RETRY_AFTER_S)})


def _video(video: Video) -> dict[str, Any]:
    return {
        "id": video.id,
        "title": video.title,
        "duration_s": video.duration_s,
        "size_bytes": video.size_bytes,
        "stream_url": f"/videos/{video.id}/stream",
        "poster_url": url_for("pages.poster", video_id=video.id) if not video.broken else None,
        "broken": video.broken,
    }


def _with_title(item: dict[str, Any]) -> dict[str, Any]:
    # Titles are the streaming app's. A video that has left the library keeps its place in the history, under its id.
    video = services().catalogue.get(item["video_id"])
    return {**item, "title": video.title if video else item["video_id"]}
