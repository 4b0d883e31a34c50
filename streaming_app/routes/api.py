"""The JSON interface for reading: the library, and the caller's own history."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

import msgspec
from flask import Blueprint, Response, jsonify, request, url_for

from streaming_app.dependencies import services
from streaming_app.history_client import HistoryAway, Refused, TooManyRequests
from streaming_app.routes.problems import problem
from streaming_app.videos.catalogue import Video

blueprint = Blueprint("api", __name__)

#: Parameters of `GET /api/history` that are passed on to the history API.
HISTORY_PARAMETERS = ("cursor", "limit", "video_id")
#: Seconds after which a client should ask again (`Retry-After`).
RETRY_AFTER_S = 5
TOO_MANY_RETRY_AFTER_S = 1


class Receipts(msgspec.Struct, frozen=True):
    """The body of `POST /api/views/receipts`."""

    event_ids: Annotated[list[UUID], msgspec.Meta(max_length=10_000)]


@blueprint.after_request
def _for_its_viewer_only(response: Response) -> Response:
    """Forbid caches to store the answer, because it belongs to one viewer."""
    if request.endpoint != "api.videos":
        response.cache_control.no_store = True
        response.vary.update(("Cookie", "Authorization"))
    return response


@blueprint.get("/api/videos")
def videos() -> Response:
    """Answer with all videos of the library, sorted by title."""
    return jsonify(videos=[_video(video) for video in services().catalogue.videos()])


@blueprint.get("/api/history")
def history() -> Response:
    """Answer with what the caller has watched, newest first."""
    viewer_id = services().tokens.caller(request).viewer()
    params = {name: request.args[name] for name in HISTORY_PARAMETERS if name in request.args}
    try:
        page = services().history.history(viewer_id, **params)
    except Refused as error:
        return problem(422, str(error))
    except TooManyRequests:
        detail = "You ask for your history too often at a time. Ask again in a second."
        return problem(429, detail, {"Retry-After": str(TOO_MANY_RETRY_AFTER_S)})
    except HistoryAway:
        detail = "The history is away just now. Views are still being recorded."
        return problem(503, detail, {"Retry-After": str(RETRY_AFTER_S)})
    return jsonify(items=[_with_title(item) for item in page["items"]], next_cursor=page["next_cursor"])


@blueprint.get("/api/page")
def page() -> Response:
    """Answer with the page token of the caller; set a cookie if the caller has none.

    A page needs it if it was opened under another cookie. 429 if this address has made too many new viewers. Pages of
    other sites cannot read the answer.
    """
    tokens = services().tokens
    viewer = tokens.page_viewer_without_cookie(request, services().limits.new_viewer)
    response = jsonify(page_token=tokens.page_token(viewer.viewer_id))
    viewer.set_cookie(response)
    return response


@blueprint.post("/api/views/check")
def check() -> Response:
    """Say whether views from this page would be accepted: 204, or 401 or 403 with a detail for the viewer. Records
    nothing.
    """
    services().tokens.caller(request)
    return Response(status=HTTPStatus.NO_CONTENT)


@blueprint.post("/api/views/receipts")
def receipts() -> Response:
    """Say which of the given event ids are stored. For ingest tokens: clients that record for other viewers and want
    proof.
    """
    if not services().tokens.caller(request).ingest:
        return problem(403, "Receipts are for ingest tokens.")
    try:
        asked = msgspec.json.decode(request.get_data(cache=False), type=Receipts)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return problem(422, 'Expected {"event_ids": [...]}, up to 10,000 UUIDs.')
    try:
        return jsonify(services().history.receipts([str(event_id) for event_id in asked.event_ids]))
    except Refused as error:
        return problem(422, str(error))
    except HistoryAway:
        return problem(503, "The history is away just now.", {"Retry-After": str(RETRY_AFTER_S)})


def _video(video: Video) -> dict[str, Any]:
    return {
        "id": video.id,
        "title": video.title,
        "duration_s": video.duration_s,
        "start_s": video.start_s,
        "size_bytes": video.size_bytes,
        "stream_url": f"/videos/{video.id}/stream",
        "poster_url": url_for("pages.poster", video_id=video.id) if not video.broken else None,
        "broken": video.broken,
    }


def _with_title(item: dict[str, Any]) -> dict[str, Any]:
    # The streaming app knows the titles, the history API does not. A video that has left the library keeps its title
    # and its place in the history.
    return {**item, "title": services().catalogue.title(item["video_id"])}
