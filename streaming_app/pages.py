"""The pages: the library, a player, the history. Plain HTML; small scripts of our own report what is watched."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus

from flask import Blueprint, Response, abort, make_response, render_template, request, send_from_directory

from streaming_app.services import services

blueprint = Blueprint("pages", __name__)

#: Everything comes from this site and nothing stands inline: a title that turns out to be markup can do nothing.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
PAGE_HEADERS = {
    # A page carries the server's time and may carry a new cookie: neither is for a cache to hand out again.
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
#: Seconds a browser may show a poster or the icon without asking. A poster changes only with its video's file.
PICTURE_MAX_AGE_S = 3600
#: Other videos shown below the player: two rows on a desktop.
MORE_VIDEOS = 6


@blueprint.get("/")
def library() -> Response:
    """Every video of the catalogue; broken ones with the reason. Scripts add the continue-watching row."""
    return _page("library.html", videos=services().catalogue.videos())


@blueprint.get("/watch/<video_id>")
def watch(video_id: str) -> Response:
    """The player of one video. 404 with a page for one that the catalogue does not have, or cannot play."""
    video = services().catalogue.get(video_id)
    if video is None or video.broken:
        return _page("missing.html", HTTPStatus.NOT_FOUND, video=video)
    others = [other for other in services().catalogue.videos() if other.id != video_id and not other.broken]
    return _page("watch.html", video=video, others=others[:MORE_VIDEOS])


@blueprint.get("/history")
def history() -> Response:
    """The frame of the history. A script fills it, so that the page never waits for the history API."""
    return _page("history.html")


@blueprint.get("/videos/<video_id>/poster")
def poster(video_id: str) -> Response:
    """A picture from the video, a JPEG. 404 for a video without one."""
    path = services().catalogue.poster(video_id)
    if path is None:
        abort(HTTPStatus.NOT_FOUND)
    # Twenty kilobytes, read at once: werkzeug leaves the file of a 304 open.
    response = Response(path.read_bytes(), mimetype="image/jpeg")
    response.cache_control.max_age = PICTURE_MAX_AGE_S
    response.add_etag()
    response.make_conditional(request)
    return response


@blueprint.get("/favicon.ico")
def favicon() -> Response:
    """What browsers ask for beside everything that is no page of ours, a bare video or an answer of the API."""
    return send_from_directory(f"{blueprint.root_path}/static", "icon.svg", max_age=PICTURE_MAX_AGE_S)


@blueprint.app_template_filter("clock")
def clock(seconds: float | None) -> str:
    """Seconds as a player shows them: `0:07`, `12:34`, `1:02:03`; an empty string when unknown."""
    if seconds is None:
        return ""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _page(template: str, status: int = HTTPStatus.OK, **values: object) -> Response:
    server_time = datetime.now(UTC).isoformat(timespec="milliseconds")
    page = render_template(template, server_time=server_time, **values)
    response = make_response(page, status, PAGE_HEADERS)
    # A page belongs to the viewer in its cookie.
    response.vary.add("Cookie")
    services().tokens.welcome(request, response)
    return response
