"""The history API: answers the streaming app over HTTP. `python -m history_worker.api` starts it.

It speaks to services, not to browsers: the caller is trusted with every viewer's history once it shows the token.
"""

from __future__ import annotations

import hmac
import sys
from time import perf_counter
from typing import Annotated, Any
from uuid import UUID

import msgspec
import structlog
from flask import Flask, Response, g, request
from granian import Granian
from granian.constants import Interfaces
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from history_worker import queries
from history_worker.database import connect, is_outage
from history_worker.settings import ApiSettings
from view_events import logs, metrics, metrics_files
from view_events.settings import SettingsError, read

log = structlog.get_logger(__name__)

#: What needs no token: it tells nothing about a viewer.
OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
#: Threads, and as many connections: queries are short, and the page waits for them.
THREADS = 8


class HistoryQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `GET /history` takes."""

    viewer_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^\x00]*\Z")]
    video_id: Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[^\x00]*\Z")] | None = None
    cursor: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=queries.MAX_PAGE)] = queries.PAGE


class ReceiptsQuery(msgspec.Struct, frozen=True):
    """What `POST /receipts` takes."""

    event_ids: Annotated[list[UUID], msgspec.Meta(max_length=10_000)]


def create_app(settings: ApiSettings, engine: Engine) -> Flask:
    """The routes, over one database."""
    app = Flask(__name__)
    measure(app)
    expected = f"Bearer {settings.history_api_token}".encode()

    @app.before_request
    def _only_services() -> Response | None:
        shown = request.headers.get("Authorization", "").encode()
        if request.path in OPEN or hmac.compare_digest(shown, expected):
            return None
        return answer({"detail": "Send the service's bearer token."}, 401)

    @app.get("/history")
    def history() -> Response:
        query = msgspec.convert(request.args.to_dict(), HistoryQuery, strict=False)
        after = queries.Cursor.decode(query.cursor) if query.cursor else None
        return answer(queries.history(engine, query.viewer_id, video_id=query.video_id, after=after, limit=query.limit))

    @app.post("/receipts")
    def receipts() -> Response:
        query = msgspec.json.decode(request.get_data(), type=ReceiptsQuery)
        return answer(queries.receipts(engine, query.event_ids))

    @app.get("/healthz")
    def healthz() -> Response:
        return answer({"status": "alive"})

    @app.get("/readyz")
    def readyz() -> Response:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        return answer({"status": "ready"})

    @app.errorhandler(msgspec.DecodeError)
    @app.errorhandler(queries.BadCursor)
    def _unprocessable(error: Exception) -> Response:
        return answer({"detail": str(error)}, 422)

    @app.errorhandler(DBAPIError)
    def _database(error: DBAPIError) -> Response:
        if not is_outage(error):
            raise error
        log.warning("PostgreSQL is away", reason=str(error.orig).splitlines()[0])
        return answer({"detail": "The database is away."}, 503)

    return app


def measure(app: Flask) -> None:
    """Count and time every request, also one that is refused, and show the figures."""

    @app.before_request
    def _begin() -> None:
        g.began = perf_counter()

    @app.after_request
    def _count(response: Response) -> Response:
        # The route as it stands above: an id in a path would make a time series of its own.
        route = request.url_rule.rule if request.url_rule else "none"
        figures = metrics.history_api()
        figures.requests.labels(route, str(response.status_code)).inc()
        figures.request_seconds.labels(route).observe(perf_counter() - g.began)
        return response

    @app.get("/metrics")
    def show_metrics() -> Response:
        content, content_type = metrics.exposition()
        return Response(content, content_type=content_type)


def answer(body: dict[str, Any], status: int = 200) -> Response:
    """JSON, with times as RFC 3339."""
    return Response(msgspec.json.encode(body), status, mimetype="application/json")


def load() -> Flask:
    """The app of one server process."""
    settings = read(ApiSettings)
    logs.configure(settings)
    metrics.history_api()  # now, and not while the first request waits
    return create_app(settings, connect(settings.database_url, pool_size=THREADS, pre_ping=True))


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    try:
        settings = read(ApiSettings)
    except SettingsError as error:
        sys.exit(f"history API: {error}")
    # Its one process is started again when it dies; what it has counted stays.
    metrics_files.make()
    server = Granian(
        "history_worker.api:load",
        factory=True,
        address=settings.history_api_host,
        port=settings.history_api_port,
        interface=Interfaces.WSGI,
        blocking_threads=THREADS,
        respawn_failed_workers=True,
        log_access=False,
    )
    try:
        server.serve()
    finally:
        metrics_files.remove()


if __name__ == "__main__":
    main()
