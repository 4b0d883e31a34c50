"""Answers errors as RFC 9457 problems: what happened, with which value, and what to do."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from flask import Flask, Response, json, request
from werkzeug.exceptions import HTTPException

from service.safe_headers import SAFE_HEADERS
from streaming_app.access.auth import AuthError
from streaming_app.recording.errors import TooMany

log = structlog.get_logger(__name__)


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **members: Any) -> Response:
    """Make an `application/problem+json` answer. `members` are added to its object."""
    body = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail, **members}
    return Response(json.dumps(body), status, {**SAFE_HEADERS, **(headers or {})}, mimetype="application/problem+json")


def too_many(error: TooMany, **members: Any) -> Response:
    """Make a 429 answer with the time to wait."""
    return problem(429, str(error), {"Retry-After": str(error.retry_after_s)}, **members)


def install(app: Flask) -> None:
    """Answer every error with a problem, also unexpected ones."""

    @app.errorhandler(AuthError)
    def _auth(error: AuthError) -> Response:
        headers = {"WWW-Authenticate": 'Bearer realm="flixtrail"'} if error.status == HTTPStatus.UNAUTHORIZED else None
        return problem(error.status, str(error), headers)

    @app.errorhandler(TooMany)
    def _too_many(error: TooMany) -> Response:
        return too_many(error)

    @app.errorhandler(HTTPException)
    def _http(error: HTTPException) -> Response:
        status, detail = error.code or 500, error.description or ""
        response = _error_page(status, detail) if _wants_html() else problem(status, detail)
        for name, value in error.get_headers():
            if name not in {"Content-Type", "Content-Length"}:
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def _unforeseen(error: Exception) -> Response:
        log.error("unforeseen error", exc_info=error)
        return problem(500, "Something went wrong here; it has been logged.")


def _wants_html() -> bool:
    """Return whether a browser asks for a page. Programs and scripts get problems, also those that accept anything
    (`*/*`).
    """
    if request.path.startswith("/api/"):
        return False
    accepted = request.accept_mimetypes
    return accepted["text/html"] > max(accepted["application/problem+json"], accepted["application/json"])


def _error_page(status: int, detail: str) -> Response:
    from streaming_app.routes.pages import error_page

    return error_page(status, detail)
