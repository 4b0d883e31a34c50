"""A worker's `/metrics` and `/healthz`: a small HTTP server in a thread of its parent process.

The figures of the pool's processes come through files (view_events/metrics_files.py), so that a process that is killed
takes none with it.
"""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Iterable
from http import HTTPStatus
from threading import Thread
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, make_server

from celery.signals import worker_process_init

from history_worker.pulse import PULSE
from history_worker.reasons import KINDS
from view_events import metrics, metrics_files

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


class CannotListen(Exception):
    """METRICS_PORT is taken, or METRICS_HOST is no address of this machine: the message says so."""


def start(host: str, port: int) -> None:
    """Listen, before the pool's processes and the connection to the broker are made. Raises CannotListen."""
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
    # A process of the pool may outlive its parent for a moment, and must not keep the port from the parent's successor.
    os.register_at_fork(after_in_child=server.socket.close)
    Thread(target=server.serve_forever, name="monitoring", daemon=True).start()


def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The WSGI application."""
    from prometheus_client import make_wsgi_app

    if environ["PATH_INFO"] == "/metrics":
        return make_wsgi_app(metrics.registry())(environ, start_response)  # type: ignore[no-any-return]
    if environ["PATH_INFO"] != "/healthz":
        status, body = HTTPStatus.NOT_FOUND, {"detail": "There are /metrics and /healthz."}
    elif fault := PULSE.fault():
        status, body = HTTPStatus.SERVICE_UNAVAILABLE, {"status": "unhealthy", "detail": fault}
    else:
        status, body = HTTPStatus.OK, {"status": "healthy"}
    start_response(f"{status} {status.phrase}", [("Content-Type", "application/json")])
    return [json.dumps(body).encode() + b"\n"]


class Quiet(WSGIRequestHandler):
    """Without a log line a request."""

    #: A client that sends nothing keeps a thread, but not for ever.
    timeout = 10

    def log_message(self, *_: object) -> None:
        pass


def _begin_at_0() -> None:
    """What has not happened yet is there all the same, so that the first time counts as a change."""
    for kind in KINDS:
        metrics.worker().refused.labels(kind)


def _in_pool(**_: object) -> None:
    """A new process of the pool has seen nothing of PostgreSQL yet; its files begin at 0."""
    metrics.worker().database_up.set(1)


def _remove_files(made_by: int) -> None:
    if os.getpid() == made_by:
        metrics_files.remove()
