"""Errors as RFC 9457 problems: what happened, with which value, what to do."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from flask import Flask, Response, json
from werkzeug.exceptions import HTTPException

from streaming_app.auth import AuthError

log = structlog.get_logger(__name__)


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **members: Any) -> Response:
    """An `application/problem+json` answer; `members` are added to its object."""
    body = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail, **members}
    return Response(json.dumps(body), status, headers, mimetype="application/problem+json")


def install(app: Flask) -> None:
    """Answer everything that goes wrong with a problem, also what nobody foresaw."""

    @app.errorhandler(AuthError)
    def _auth(error: AuthError) -> Response:
        headers = {"WWW-Authenticate": 'Bearer realm="flixtrail"'} if error.status == HTTPStatus.UNAUTHORIZED else None
        return problem(error.status, str(error), headers)

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        response = problem(error.code or 500, error.description or "")
        for name, value in error.get_headers():
            if name not in {"Content-Type", "Content-Length"}:
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def _unforeseen(error: Exception) -> Response:
        log.error("unforeseen error", exc_info=error)
        return problem(500, "Something went wrong here; it has been logged.")
