"""The streaming app as granian runs it, in this process and without a socket.

client = RsgiApp(create_app(settings)).client()
assert client.post("/api/views", json=view, headers=token).status_code == 202
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Flask
from werkzeug.datastructures import EnvironHeaders, Headers
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.test import Client, TestResponse

from streaming_app import rsgi

#: Seconds after which a request without an answer fails its test.
TIMEOUT_S = 60


@dataclass
class Scope:
    """A request, as granian describes it. The names of headers are in lower case."""

    method: str = "GET"
    path: str = "/"
    query_string: str = ""
    headers: Headers = field(default_factory=Headers)
    server: str = "127.0.0.1:8000"
    client: str = "127.0.0.1:50000"
    scheme: str = "http"
    http_version: str = "1.1"


class Proto:
    """Has the body of a request, and takes its answer, like granian's protocol object."""

    def __init__(self, body: bytes) -> None:
        self._request_body = body
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = b""

    async def __call__(self) -> bytes:
        return self._request_body

    async def __aiter__(self) -> Any:
        yield self._request_body

    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.response_bytes(status, headers, b"")

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        assert not self.status, "answered twice"
        self.status, self.headers, self.body = int(status), headers, body

    def response_file_range(self, status: int, headers: list[tuple[str, str]], file: str, start: int, end: int) -> None:
        assert start < end  # granian refuses anything else
        with Path(file).open("rb") as opened:
            opened.seek(start)
            self.response_bytes(status, headers, opened.read(end - start))


class RsgiApp:
    """A WSGI application that passes each request to `streaming_app.rsgi.App`, as granian does.

    So Werkzeug's test client and its server can send the requests. It does not start or stop the publisher.
    """

    def __init__(self, flask: Flask) -> None:
        self._app = rsgi.App(flask.extensions["flixtrail"].settings)
        self._app.prepare(flask, _event_loop())

    def client(self, address: str = "127.0.0.1", *, use_cookies: bool = True) -> RsgiClient:
        """Make a client at this address, with its own cookies."""
        return RsgiClient(self, address, use_cookies=use_cookies)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        scope, proto = _scope(environ), Proto(body)
        handled = self._app.__rsgi__(cast(Any, scope), cast(Any, proto))
        asyncio.run_coroutine_threadsafe(handled, _event_loop()).result(TIMEOUT_S)
        assert proto.status, "no answer"
        start_response(f"{proto.status} {HTTP_STATUS_CODES[proto.status]}", proto.headers)
        return () if scope.method == "HEAD" else (proto.body,)  # granian sends the headers alone, too


class RsgiClient(Client):
    """Werkzeug's test client, at an address."""

    def __init__(self, app: RsgiApp, address: str, *, use_cookies: bool) -> None:
        super().__init__(app, use_cookies=use_cookies)
        self._environ = {"REMOTE_ADDR": address}

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        """Send a request. See werkzeug.test.EnvironBuilder for the arguments."""
        return super().open(*args, environ_base=self._environ, **kwargs)


def _scope(environ: WSGIEnvironment) -> Scope:
    address = environ.get("REMOTE_ADDR", "127.0.0.1")
    return Scope(
        method=environ["REQUEST_METHOD"],
        path=environ["PATH_INFO"].encode("latin-1").decode(errors="replace"),
        query_string=environ.get("QUERY_STRING", ""),
        headers=Headers((name.lower(), value) for name, value in EnvironHeaders(environ)),
        client=f"[{address}]:50000" if ":" in address else f"{address}:50000",
        scheme=environ["wsgi.url_scheme"],
        http_version=environ["SERVER_PROTOCOL"].removeprefix("HTTP/"),
    )


@cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """Start the event loop of all applications here, in a thread of its own. A browser test has one in its own thread,
    too.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="rsgi", daemon=True).start()
    return loop
