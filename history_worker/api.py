"""The history API: answers the streaming app over HTTP. Start it with `python -m history_worker.api`.

Its clients are services, not browsers. A client that sends the token may read every viewer's history.
"""

from __future__ import annotations

import hmac
import sys
import threading
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

from history_worker.settings import ApiSettings
from history_worker.store import queries
from history_worker.viewer_limit import Share, TooMany
from service import logs, metrics, metrics_files
from service.database import QUERY_CANCELED, connect, is_outage, is_refusal, sqlstate
from service.host_header import Hosts
from service.listening import PortTaken, end_with_parent, listening_address
from service.safe_headers import SAFE_HEADERS
from service.settings import LOOPBACK, SettingsError, read

log = structlog.get_logger(__name__)

#: Paths that need no token: they tell nothing about a viewer.
OPEN = frozenset({"/healthz", "/readyz", "/metrics"})
#: Only private names and addresses: without the token, a request under a public name is refused.
HOSTS = Hosts()
#: Threads, and as many database connections. Queries are short, and a page waits for them.
THREADS = 8
#: How many of these threads one viewer may use at a time. A page sends its requests one after another.
THREADS_A_VIEWER = 2
#: `Retry-After` in seconds, for a viewer who sent too many requests at a time.
RETRY_AFTER_S = 1
#: PostgreSQL ends a query that takes longer. The streaming app waits for one second (streaming_app/history_client.py),
#: so a later answer would reach no client, and the next viewer needs the thread.
STATEMENT_TIMEOUT_MS = 800
#: What msgspec raises for an invalid body: no JSON, nested too deep, not UTF-8.
NOT_A_QUERY = (msgspec.DecodeError, RecursionError, UnicodeError)


class HistoryQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters of `GET /history`."""

    viewer_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^\x00]*\Z")]
    video_id: Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[^\x00]*\Z")] | None = None
    cursor: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=queries.MAX_PAGE)] = queries.PAGE


class ReceiptsQuery(msgspec.Struct, frozen=True):
    """The body of `POST /receipts`."""

    event_ids: Annotated[list[UUID], msgspec.Meta(max_length=10_000)]


def create_app(settings: ApiSettings, engine: Engine) -> Flask:
    """Make the Flask app with its routes, over one database."""
    app = Flask(__name__)
    measure(app)
    only_services(app, settings.history_api_token)
    tell_errors(app)
    share = Share(THREADS_A_VIEWER)

    @app.get("/history")
    def history() -> Response:
        query = msgspec.convert(request.args.to_dict(), HistoryQuery, strict=False)
        after = queries.Cursor.decode(query.cursor) if query.cursor else None
        with share.taken(query.viewer_id):
            page = queries.history(engine, query.viewer_id, video_id=query.video_id, after=after, limit=query.limit)
        return answer(page)

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

    return app


def tell_errors(app: Flask) -> None:
    """Answer errors with a `detail`: 422 for a wrong request; 429 and 503 for what may work later."""

    def unprocessable(error: Exception) -> Response:
        return answer({"detail": printable(error)}, 422)

    for kind in (*NOT_A_QUERY, queries.BadCursor):
        app.register_error_handler(kind, unprocessable)

    @app.errorhandler(TooMany)
    def _too_many(error: TooMany) -> Response:
        response = answer({"detail": str(error)}, 429)
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    @app.errorhandler(DBAPIError)
    def _database(error: DBAPIError) -> Response:
        if is_refusal(error):  # a value that no row can have
            return answer({"detail": one_line(error)}, 422)
        if sqlstate(error) == QUERY_CANCELED:
            log.warning("a query took too long and was ended", route=request.path, after_ms=STATEMENT_TIMEOUT_MS)
            return answer({"detail": "The database is too slow just now."}, 503)
        if not is_outage(error):
            raise error
        log.warning("PostgreSQL is away", reason=one_line(error))
        return answer({"detail": "The database is away."}, 503)


def only_services(app: Flask, token: str) -> None:
    """Require the token. Without it, only the paths in OPEN answer."""
    expected = f"Bearer {token}".encode()

    @app.before_request
    def _check() -> Response | None:
        shown = request.headers.get("Authorization", "").encode()
        if hmac.compare_digest(shown, expected):
            return None
        if request.path not in OPEN:
            return answer({"detail": "Send the service's bearer token."}, 401)
        # The page of any site can ask a port of this machine under the site's own name: see service/host_header.py.
        is_local = request.remote_addr in LOOPBACK
        fault = HOSTS.fault(request.environ.get("HTTP_HOST"), request.environ["SERVER_PROTOCOL"]) if is_local else None
        return answer({"detail": fault[1]}, fault[0]) if fault else None


def printable(error: Exception) -> str:
    """Return the error's text as UTF-8. It may repeat what a client sent, and not all of that can be encoded."""
    return f"{type(error).__name__}: {error}".encode(errors="replace").decode()


def one_line(error: DBAPIError) -> str:
    """Return the first line of what PostgreSQL or its client library said."""
    return str(error.orig).splitlines()[0]


def measure(app: Flask) -> None:
    """Count and time every request, also refused ones, and serve the metrics."""

    @app.before_request
    def _begin() -> None:
        g.began = perf_counter()

    @app.after_request
    def _count(response: Response) -> Response:
        # The label is the route, not the path: an id in a path would make a time series of its own.
        route = request.url_rule.rule if request.url_rule else "none"
        for name, value in SAFE_HEADERS.items():
            response.headers.setdefault(name, value)
        figures = metrics.history_api()
        figures.requests.labels(route, str(response.status_code)).inc()
        figures.request_seconds.labels(route).observe(perf_counter() - g.began)
        return response

    @app.get("/metrics")
    def show_metrics() -> Response:
        content, content_type = metrics.exposition()
        return Response(content, content_type=content_type)


def answer(body: dict[str, Any], status: int = 200) -> Response:
    """Make a JSON response; times are in RFC 3339."""
    return Response(msgspec.json.encode(body), status, mimetype="application/json")


def load() -> Flask:
    """Make the app of one server process."""
    settings = read(ApiSettings)
    logs.configure(settings)
    end_with_parent()
    metrics.history_api()  # now, so that the first request does not wait for it
    engine = connect_briefly(settings.database_url)
    threading.Thread(target=say_what_is_wrong, args=(engine,), daemon=True).start()
    return create_app(settings, engine)


def connect_briefly(database_url: str) -> Engine:
    """Make connections for queries that a page waits for."""
    timeouts = {"statement_timeout": str(STATEMENT_TIMEOUT_MS), "timezone": "UTC"}
    return connect(database_url, pool_size=THREADS, pre_ping=True, timeouts=timeouts)


def say_what_is_wrong(engine: Engine) -> None:
    """Try the database at the start: the log then shows a wrong password before the first request. Goes on anyway."""
    try:
        engine.connect().close()
    except DBAPIError as error:
        log.warning("PostgreSQL cannot be reached; it is asked again with every request", reason=one_line(error))


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    try:
        settings = read(ApiSettings)
        address = listening_address(settings.history_api_host, settings.history_api_port, "HISTORY_API_PORT")
    except (SettingsError, PortTaken) as error:
        sys.exit(f"history API: {error}")
    # Granian starts the one process again when it dies. Its counters stay, in these files.
    metrics_files.make()
    server = Granian(
        "history_worker.api:load",
        factory=True,
        address=address,
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
