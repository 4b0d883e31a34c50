"""Serves a worker's `/metrics`, `/healthz` and `/held`: a small HTTP server in a thread of its parent process.

The pool's processes pass their metrics through files (service/metrics_files.py), so that a killed process loses
none.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Iterable
from http import HTTPStatus
from threading import Thread
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from celery.signals import worker_process_init

from safe_consumer.dead_letter_reasons import KINDS, how_many
from safe_consumer.health import HEALTH
from safe_consumer.pgmq_reads import READ
from service import metrics, metrics_files
from service.host_header import Hosts
from service.safe_headers import SAFE_HEADERS
from service.settings import LOOPBACK

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


HOSTS = Hosts()
#: How often to retry copying a set that the worker's main thread changes meanwhile.
COPY_ATTEMPTS = 100


class CannotListen(Exception):
    """METRICS_PORT is taken, or METRICS_HOST is not an address of this machine. The message says which."""


def start(host: str, port: int) -> None:
    """Start the server. Call it before the pool forks and before the worker connects. Raises CannotListen."""
    from prometheus_client.exposition import ThreadingWSGIServer

    try:
        server = make_server(host, port, answer, ThreadingWSGIServer, Quiet)
    except OSError as error:
        raise CannotListen(
            f"METRICS_PORT: cannot listen on {host}, port {port}: {error.strerror}. Choose another port, or none"
        ) from None
    metrics_files.make()
    atexit.register(_remove_files, os.getpid())
    _begin_at_0()
    worker_process_init.connect(_in_pool, weak=False)
    # A process of the pool may outlive its parent for a moment. It must not keep the port from the next worker.
    os.register_at_fork(after_in_child=server.socket.close)
    Thread(target=server.serve_forever, name="monitoring", daemon=True).start()


def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a request for `/metrics`, `/healthz` or `/held`. This is the WSGI application."""
    from prometheus_client import make_wsgi_app

    body: dict[str, Any]
    if not_ours := _host_fault(environ):
        status, body = HTTPStatus(not_ours[0]), {"detail": not_ours[1]}
    elif environ["PATH_INFO"] == "/metrics":
        return make_wsgi_app(metrics.registry())(environ, start_response)  # type: ignore[no-any-return]
    elif environ["PATH_INFO"] == "/held":
        status, body = HTTPStatus.OK, held()
    elif environ["PATH_INFO"] != "/healthz":
        status, body = HTTPStatus.NOT_FOUND, {"detail": "There are /metrics, /healthz and /held."}
    elif fault := HEALTH.fault():
        status, body = HTTPStatus.SERVICE_UNAVAILABLE, {"status": "unhealthy", "detail": fault}
    else:
        status, body = HTTPStatus.OK, {"status": "healthy"}
    start_response(f"{status} {status.phrase}", [("Content-Type", "application/json"), *SAFE_HEADERS.items()])
    return [json.dumps(body).encode() + b"\n"]


def _host_fault(environ: WSGIEnvironment) -> tuple[int, str] | None:
    """Return status and detail of the answer to a request with a wrong Host header. None: the header is fine.

    The page of any site can ask a port of its viewer's machine: see service/host_header.py.
    """
    is_local = environ.get("REMOTE_ADDR") in LOOPBACK
    return HOSTS.fault(environ.get("HTTP_HOST"), environ["SERVER_PROTOCOL"]) if is_local else None


def held() -> dict[str, Any]:
    """Return what this worker has received and not acknowledged yet: messages, and the view events in them.

    In learner mode also `read`: the ids of the messages that it read last. PostgreSQL knows more about them.
    """
    bodies = [request.message.body for request in _unacknowledged()]
    return {"messages": len(bodies), "views": sum(map(how_many, bodies)), "read": list(READ)}


def _unacknowledged() -> set[Any]:
    from celery.worker import state

    for _ in range(COPY_ATTEMPTS):
        try:
            return {*state.reserved_requests, *state.active_requests}
        except RuntimeError:  # the worker received one more meanwhile
            continue
    return set()


class Quiet(WSGIRequestHandler):
    """A request handler that writes no log line."""

    #: A client that sends nothing occupies a thread for so many seconds at most.
    timeout = 10

    def log_message(self, *_: object) -> None:
        pass


def _begin_at_0() -> None:
    """Make every counter exist with 0 from the start, so that its first event counts as a change."""
    for kind in KINDS:
        metrics.worker().refused.labels(kind)


def _in_pool(**_: object) -> None:
    """Set the database gauge in a new process of the pool: it has seen no outage yet, but its file begins at 0."""
    metrics.worker().database_up.set(1)


def _remove_files(made_by: int) -> None:
    if os.getpid() == made_by:
        metrics_files.remove()
