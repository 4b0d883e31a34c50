"""The application that granian runs in each web process: video bytes from Rust, everything else from Flask in threads.

A viewer who has stopped reading holds a socket and an open file, no thread and no more than a few hundred kilobytes:
see docs/decisions/0002-web-server.md.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus

import structlog
from flask import Flask, Response
from granian.rsgi import HTTPProtocol, ProtocolClosed, Scope  # type: ignore[attr-defined]

from streaming_app import create_app, leaving, tracing, views, wsgi
from streaming_app.problems import problem
from streaming_app.services import Services
from streaming_app.settings import StreamingSettings
from streaming_app.streaming import METHODS
from streaming_app.video_bytes import refusal, reply_for
from view_events import cycles, metrics
from view_events.logs import configure

log = structlog.get_logger(__name__)

STREAM_PATH = re.compile(r"/videos/(?P<video_id>[A-Za-z0-9._-]{1,128})/stream")
#: Bytes of a request body that Flask may see: what `POST /api/views` takes.
BODY_BYTES = 1024 * 1024
#: Up to here a body that is too large is read and thrown away, since a client that is still sending when the
#: connection closes never reads why. Beyond, the connection is closed.
DISCARDED_BODY_BYTES = 8 * 1024 * 1024
#: Up to here a request with views is decoded and checked on the event loop: fifty views, half a millisecond.
AT_ONCE_BYTES = 16 * 1024
#: A body has to be here within this time. A client that dribbles holds no thread, but it need not stay for ever.
BODY_TIMEOUT_S = 30


class Refused(Exception):
    """A request whose body is not read; `status` says why."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class App:
    """Made in the main process; started, in each web process, after the fork."""

    def __init__(self, settings: StreamingSettings) -> None:
        self._settings = settings

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        configure(self._settings)
        metrics.streaming()  # now, so that what has not happened yet stands at 0
        self.adopt(create_app(self._settings), loop)
        self._services.publisher.start()
        # Look at the folder now, so that the first viewer need not wait for it.
        threading.Thread(target=self._services.catalogue.videos, name="first look", daemon=True).start()
        leaving.watch(last_words=self._services.publisher.stop)
        cycles.look_rarely()

    def adopt(self, flask: Flask, loop: asyncio.AbstractEventLoop) -> None:
        """Serve this app on this loop."""
        self._flask = flask
        self._services: Services = flask.extensions["flixtrail"]
        self._threads = ThreadPoolExecutor(self._settings.web_threads, thread_name_prefix="flask")
        self._loop = loop
        self._bell = Bell(loop)

    def __rsgi_del__(self, _loop: asyncio.AbstractEventLoop) -> None:
        # Requests are over, so whoever was told 202 has been; nothing that waits longer than this was promised.
        self._threads.shutdown()
        self._services.publisher.stop(leaving.LAST_WORDS_S)

    async def __rsgi__(self, scope: Scope, proto: HTTPProtocol) -> None:
        try:
            if scope.method in METHODS and (match := STREAM_PATH.fullmatch(scope.path)):
                await self._stream(match["video_id"], scope, proto)
                return
            body = await _body(scope, proto)
            later = None
            if scope.path == views.PATH and len(body) <= AT_ONCE_BYTES:
                # To hand it to a thread takes longer than to do it.
                later = self._run_flask(scope, proto, body, wsgi.Later(may_wait=False))
            if later is None or later.again:
                later = await self._loop.run_in_executor(
                    self._threads, self._run_flask, scope, proto, body, wsgi.Later(may_wait=True)
                )
            if later.answer is not None:
                await self._bell.ended(later.answer.safe)
                proto.response_bytes(*later.answer.reply())
        except Refused as refused:
            answer = problem(refused.status, str(refused))
            if (scope.method, scope.path) == ("POST", views.PATH):
                answer = views.answered(answer, tracing.trace_id(scope.headers.get("traceparent")))
            _send(proto, answer)
        except ProtocolClosed:
            log.debug("client went away", path=scope.path)
        except Exception:
            log.exception("request failed outside of Flask", path=scope.path)
            _send(proto, problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong here; it has been logged."))

    async def _stream(self, video_id: str, scope: Scope, proto: HTTPProtocol) -> None:
        """The bytes of a video. Never by way of Flask, whose answers are collected in memory."""
        catalogue = self._services.catalogue
        video = catalogue.at_hand(video_id)
        if video is None:  # a new file perhaps, for which the folder has to be looked at
            video = await self._loop.run_in_executor(self._threads, catalogue.get, video_id)
        proxy = self._settings.behind_proxy
        reply = reply_for(video, scope.method, scope.headers, behind_proxy=proxy) if video else None
        if video is None or reply is None or reply.detail:
            _send(proto, refusal(video_id, reply))
            return
        if reply.start == reply.end or reply.by_proxy:
            proto.response_empty(reply.status, list(reply.headers))
        else:
            proto.response_file_range(reply.status, list(reply.headers), str(video.path), reply.start, reply.end)
        if reply.start != reply.end:
            metrics.streaming().video_bytes.labels(reply.sent_by).inc(reply.end - reply.start)
            self._note(scope, video_id)  # now that the bytes are on their way: they never wait for the history

    def _note(self, scope: Scope, video_id: str) -> None:
        authorization = scope.headers.get("authorization")
        if authorization and not wsgi.has_parameter(scope.query_string, "playback"):
            self._services.stream_views.note(authorization, video_id)

    def _run_flask(self, scope: Scope, proto: HTTPProtocol, body: bytes, later: wsgi.Later) -> wsgi.Later:
        """Answer the request, unless `later` then says otherwise."""
        status, headers, content = wsgi.run(self._flask, scope, body, later)
        if later.answer is None and not later.again:
            proto.response_bytes(status, headers, content)
        return later


class Bell:
    """Wakes the event loop for futures that end in other threads: once for all that end together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ended: deque[asyncio.Future[None]] = deque()
        self._rung = False

    def ended(self, future: Future[None]) -> asyncio.Future[None]:
        """To be awaited, on the loop: over when `future` has ended, in whichever way."""
        waiter = self._loop.create_future()
        future.add_done_callback(lambda _: self._ring(waiter))
        return waiter

    def _ring(self, waiter: asyncio.Future[None]) -> None:
        self._ended.append(waiter)
        if not self._rung:
            self._rung = True
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._rung = False  # first: who ends from here on rings again
        while self._ended:
            waiter = self._ended.popleft()
            if not waiter.done():  # its request may have been given up
                waiter.set_result(None)


async def _body(scope: Scope, proto: HTTPProtocol) -> bytes:
    """The whole body. Raises Refused for one that is too large, too slow or of unknown length, ProtocolClosed."""
    if "transfer-encoding" in scope.headers:
        # Without a length, a body that breaks off looks like one that ends: half of it might be recorded.
        raise Refused(HTTPStatus.LENGTH_REQUIRED, "Send a Content-Length.")
    length = int(scope.headers.get("content-length", "0"))
    if not length:
        return b""
    too_large = Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body has {BODY_BYTES} bytes at the most.")
    if length > DISCARDED_BODY_BYTES:
        raise too_large
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            if length <= BODY_BYTES:
                return await proto()
            async for _chunk in proto:
                pass
    except TimeoutError:
        raise Refused(HTTPStatus.REQUEST_TIMEOUT, f"The body was not here within {BODY_TIMEOUT_S} s.") from None
    raise too_large


def _send(proto: HTTPProtocol, response: Response) -> None:
    proto.response_bytes(response.status_code, response.headers.to_wsgi_list(), response.get_data())
