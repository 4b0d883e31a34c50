"""Checks the host of every request, and adds security headers to every answer."""

from __future__ import annotations

from flask import Flask, Response, request

from service.host_header import Hosts
from service.safe_headers import SAFE_HEADERS
from streaming_app import wsgi
from streaming_app.routes.problems import problem


def install(app: Flask, hosts: Hosts) -> None:
    """Install both in the app. Call it before the blueprints are registered, so that a request for a foreign host goes
    no further.
    """

    @app.before_request
    def _check_host() -> Response | None:
        environ = request.environ
        fault = hosts.fault(environ.get("HTTP_HOST"), environ["SERVER_PROTOCOL"])
        return problem(*fault) if fault else None

    @app.after_request
    def _make_safe(response: Response) -> Response:
        if response is not wsgi.DEFERRED:
            for name, value in SAFE_HEADERS.items():
                response.headers.setdefault(name, value)
        return response
