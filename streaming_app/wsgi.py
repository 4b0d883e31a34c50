"""Runs a WSGI application for one RSGI request, after the body has been read."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from flask import Response
from granian.rsgi import Scope

#: Headers that CGI names without HTTP_ in front.
CGI_NAMES = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}

#: Key of the environment. Its value is a Deferral.
DEFERRAL = "flixtrail.deferral"


#: Status, headers and the whole content of an answer.
Reply = tuple[int, list[tuple[str, str]], bytes]


class DeferredAnswer(Protocol):
    """An answer that is known when a future has ended."""

    @property
    def safe(self) -> Future[None]: ...
    def reply(self) -> Reply: ...


@dataclass(slots=True)
class Deferral:
    """How an application answers later, without blocking its thread. The application then returns DEFERRED."""

    #: Whether the application may block this thread for a moment.
    may_block: bool
    #: True: the application would have to block, but must not. Run it again in a thread where it may.
    needs_thread: bool = False
    #: The answer to send when it is known.
    answer: DeferredAnswer | None = None


class _Deferred(Response):
    def __call__(self, _environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("202 Accepted", [])
        return ()


#: Returned instead of an answer that comes later. Shared by all requests, so it must not be changed.
DEFERRED = _Deferred()


def run(app: WSGIApplication, scope: Scope, body: bytes, deferral: Deferral) -> Reply:
    """Run the application and return its answer.

    The answer counts only if the application did not set `deferral.answer` or `deferral.needs_thread`.
    """
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Callable[[bytes], object]:
        started[:] = int(status.split(" ", 1)[0]), headers
        return lambda _content: None

    answer = app({**environ(scope, body), DEFERRAL: deferral}, start_response)
    try:
        content = b"".join(answer)
    finally:
        if close := getattr(answer, "close", None):
            close()
    status, headers = started
    return status, headers, content


def environ(scope: Scope, body: bytes) -> dict[str, Any]:
    """Convert the request to a WSGI environment (PEP 3333)."""
    host, _, port = scope.server.rpartition(":")
    result: dict[str, Any] = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        # PEP 3333: the bytes of the path, each as one character.
        "PATH_INFO": scope.path.encode().decode("latin-1"),
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": host.strip("[]"),
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": scope.client.rpartition(":")[0].strip("[]"),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope.headers.items():
        key = CGI_NAMES.get(name) or f"HTTP_{name.upper().replace('-', '_')}"
        # Repeated headers are joined with a comma (RFC 9110, 5.3), cookies with a semicolon.
        separator = "; " if name == "cookie" else ","
        result[key] = f"{result[key]}{separator}{value}" if key in result else value
    result["CONTENT_LENGTH"] = str(len(body))
    return result


def has_parameter(query_string: str, name: str) -> bool:
    """Return whether `?name=...` is there, without decoding the rest."""
    return any(part.partition("=")[0] == name for part in query_string.split("&"))
