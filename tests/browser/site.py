"""The streaming app as a browser sees it: the real one over HTTP, with a broker and a history API that do as told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import groupby
from json import loads
from pathlib import Path
from time import monotonic
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Flask, Response, jsonify, request
from werkzeug.serving import WSGIRequestHandler, make_server

from streaming_app import create_app
from streaming_app.recording.outbox import Outbox
from streaming_app.recording.publisher import Publisher
from streaming_app.settings import StreamingSettings
from tests.fakes import RecordingLink
from tests.rsgi_client import RsgiApp
from tests.waiting import until
from view_events.event import ViewEvent

#: Ten times the default: a test of a backlog need not wait long.
VIEWER_EVENTS_PER_S = 100

#: The events of a request as they were sent.
Posted = list[dict[str, Any]]
#: A status line, headers, and perhaps a body.
Answer = tuple[str, dict[str, str]] | tuple[str, dict[str, str], str]


@dataclass
class Site:
    """A running streaming app. `link` has what arrived at the broker; `history_away` takes the history API away.

    `refuse` may answer a `POST /api/views` itself: it gets the events of the request, and gives an answer or None.
    """

    link: RecordingLink
    url: str = ""
    history_away: bool = False
    refuse: Callable[[Posted], Answer | None] = lambda _posted: None
    on_the_way: Callable[[WSGIEnvironment], None] = lambda _environ: None  #: what a proxy does to a request
    posts: list[tuple[float, Posted]] = field(default_factory=list)  #: (monotonic time, events) of every request

    @property
    def events(self) -> list[ViewEvent]:
        """What arrived, each once, in the order of the ids."""
        return sorted({event.event_id: event for event in self.link.events}.values(), key=lambda event: event.event_id)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def items(self, viewer_id: str, video_id: str | None) -> list[dict[str, Any]]:
        """The viewer's history as the history API would tell it, newest first."""
        mine = [e for e in self.events if e.viewer_id == viewer_id and video_id in {None, e.video_id}]
        mine.sort(key=lambda event: event.playback_id)
        found = [_playback(list(events)) for _, events in groupby(mine, key=lambda event: event.playback_id)]
        return sorted(found, key=lambda item: str(item["last_at"]), reverse=True)


def _playback(events: list[ViewEvent]) -> dict[str, Any]:
    events.sort(key=lambda event: (event.at, event.event_id))
    played = sum(e.position_s - e.played_from_s for e in events if e.played_from_s is not None)
    return {
        "playback_id": str(events[0].playback_id),
        "video_id": events[0].video_id,
        "started_at": events[0].at.isoformat(),
        "last_at": events[-1].at.isoformat(),
        "position_s": events[-1].position_s,
        "watched_s": played,
        "finished": any(event.kind == "finished" for event in events),
    }


@contextmanager
def running_site(videos: Path | None, cache: Path, outbox: Path) -> Iterator[Site]:
    """Serve the streaming app and its history API until the block ends."""
    site = Site(RecordingLink())
    with serving(_history_api(site)) as history_url:
        settings = StreamingSettings(
            videos=videos,
            cache=cache,
            history_api_url=history_url,
            viewer_events_per_s=VIEWER_EVENTS_PER_S,
        )
        app = create_app(settings)
        publisher = Publisher(site.link, Outbox(outbox, max_bytes=1024 * 1024))
        app.extensions["flixtrail"] = replace(app.extensions["flixtrail"], publisher=publisher)
        publisher.start()
        until(lambda: publisher.ready, what="the publisher")
        with serving(_gate(RsgiApp(app), site)) as site.url:
            yield site
        publisher.stop()


@contextmanager
def serving(app: WSGIApplication) -> Iterator[str]:
    """Serve a WSGI application on a free port; its URL."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    server.daemon_threads = True  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 (werkzeug's name)
        pass


def _gate(app: WSGIApplication, site: Site) -> WSGIApplication:
    """What stands between a browser and the app: it notes what is posted, and refuses when told to."""

    def gate(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        site.on_the_way(environ)
        if environ["PATH_INFO"] == "/api/views":
            posted = _posted(environ)
            site.posts.append((monotonic(), posted))
            if answer := site.refuse(posted):
                status, headers, *texts = answer
                body = "".join(texts).encode()
                start_response(status, [*headers.items(), ("Content-Length", str(len(body)))])
                return [body]
        return app(environ, start_response)

    return gate


def _posted(environ: WSGIEnvironment) -> Posted:
    """The JSON body of a request, which the application can still read."""
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    environ["wsgi.input"] = BytesIO(body)
    events: Posted = loads(body)
    return events


def _history_api(site: Site) -> Flask:
    api = Flask("history_api")

    @api.get("/history")
    def history() -> Response:
        if site.history_away:
            return Response(status=503)
        items = site.items(request.args["viewer_id"], request.args.get("video_id"))
        first = int(request.args.get("cursor", 0))
        last = first + int(request.args.get("limit", 50))
        return jsonify(items=items[first:last], next_cursor=str(last) if last < len(items) else None)

    return api
