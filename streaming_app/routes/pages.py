"""The HTML pages: the library, the player and the history. Small scripts of our own report what is watched."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

from flask import Blueprint, Response, make_response, render_template, request, send_from_directory

from streaming_app.dependencies import services
from streaming_app.recording.errors import TooMany
from streaming_app.routes.problems import problem
from streaming_app.videos.posters import PosterNotReady

blueprint = Blueprint("pages", __name__)

#: Everything comes from this site and no script or style is inline. So a title that contains markup cannot do any harm.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
PAGE_HEADERS = {
    # A page has the server's time and may set a cookie. A cache must not serve either again.
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
#: Seconds that a browser may use a poster or the icon without asking. A poster changes only with its video's file.
PICTURE_MAX_AGE_S = 3600
STATIC = Path(__file__).parents[1] / "static"
#: The picture for a video of which no poster can be made.
NO_POSTER = STATIC / "no-poster.svg"
#: Seconds after which a browser asks again for a poster that is being made.
POSTER_RETRY_S = 2
#: Number of other videos shown below the player: two rows on a desktop.
MORE_VIDEOS = 6


@blueprint.get("/")
def library() -> Response:
    """Show every video of the catalogue; broken ones with the reason. Scripts add the continue-watching row."""
    parts = services()
    videos = parts.catalogue.videos()
    # The folder's path is for the operator only. Behind a proxy, viewers are other people.
    folder = "VIDEOS" if parts.settings.behind_proxy else str(parts.catalogue.folder)
    return _page("library.html", videos=videos, problem=parts.catalogue.problem, folder=folder)


@blueprint.get("/watch/<video_id>")
def watch(video_id: str) -> Response:
    """Show the player of one video. 404 with a page if the catalogue does not have the video or cannot play it."""
    video = services().catalogue.get(video_id)
    if video is None or video.broken:
        return _page("missing.html", HTTPStatus.NOT_FOUND, video=video)
    others = [other for other in services().catalogue.videos() if other.id != video_id and not other.broken]
    return _page("watch.html", video=video, others=others[:MORE_VIDEOS])


@blueprint.get("/history")
def history() -> Response:
    """Show the frame of the history. A script fills it, so that the page never waits for the history API."""
    return _page("history.html")


@blueprint.get("/about")
def about() -> Response:
    """Explain what Flixtrail is, and where to see more of it."""
    settings = services().settings
    return _page("about.html", flower_page=settings.flower_page, rabbitmq_page=settings.rabbitmq_page)


def error_page(status: int, detail: str) -> Response:
    """Show an error page for a person: the address leads nowhere, or the request failed."""
    return _page("problem.html", status, heading=HTTPStatus(status).phrase, detail=detail)


@blueprint.get("/videos/<video_id>/poster")
def poster(video_id: str) -> Response:
    """Answer with the video's poster, a JPEG. 404 with a substitute picture if there is none; 503 while it is made."""
    catalogue = services().catalogue
    try:
        path = catalogue.poster(video_id)
    except PosterNotReady as reason:
        return problem(503, f"No poster yet: {reason}.", {"Retry-After": str(POSTER_RETRY_S)})
    if path is None:
        return Response(NO_POSTER.read_bytes(), HTTPStatus.NOT_FOUND, mimetype="image/svg+xml")
    # Twenty kilobytes, read at once, because werkzeug leaves the file of a 304 open.
    response = Response(path.read_bytes(), mimetype="image/jpeg")
    response.cache_control.max_age = PICTURE_MAX_AGE_S
    response.add_etag()
    response.make_conditional(request)
    return response


@blueprint.get("/favicon.ico")
def favicon() -> Response:
    """Answer with the icon. Browsers request it beside everything that is not an HTML page of ours."""
    return send_from_directory(STATIC, "icon.svg", max_age=PICTURE_MAX_AGE_S)


@blueprint.app_template_filter("clock")
def clock(seconds: float | None) -> str:
    """Format seconds as a player shows them: `0:07`, `12:34`, `1:02:03`; an empty string if unknown."""
    if seconds is None:
        return ""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _page(template: str, status: int = HTTPStatus.OK, **values: object) -> Response:
    tokens = services().tokens
    try:
        viewer = tokens.page_viewer(request, services().limits.new_viewer)
    except TooMany:
        viewer = None  # the page then requests `GET /api/page`, and says why nothing is recorded
    page = render_template(
        template,
        server_time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        page_token=tokens.page_token(viewer.viewer_id) if viewer else "",
        finished_at=services().settings.finished_at,
        **values,
    )
    response = make_response(page, status, PAGE_HEADERS)
    # A page belongs to the viewer in its cookie.
    response.vary.add("Cookie")
    if viewer:
        viewer.set_cookie(response)
    return response
