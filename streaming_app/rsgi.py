"""The application that granian runs in each web process. Rust sends the video bytes; Flask answers the rest, in
threads.

A viewer who has stopped reading takes a socket, an open file and at most a few hundred kilobytes, but no thread: see
docs/decisions/0002-web-server.md.
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

from service import garbage_collection, metrics, tracing
from service.logs import configure
from service.safe_headers import SAFE_HEADERS
from streaming_app import create_app, shutdown, wsgi
from streaming_app.dependencies import Services
from streaming_app.recording.token_buckets import BucketTable
from streaming_app.routes import record
from streaming_app.routes.problems import problem
from streaming_app.routes.video_bytes import refusal, reply_for
from streaming_app.settings import StreamingSettings
from streaming_app.videos.byte_ranges import METHODS
from view_events.event import VIDEO

log = structlog.get_logger(__name__)

STREAM_PATH = re.compile(rf"/videos/(?P<video_id>{VIDEO.pattern})/stream")
#: Maximum bytes of a request body: 1,000 events of 1 kB. An event usually takes a third of that.
MAX_BODY_BYTES = 1024 * 1024
#: A body that is too large is read and discarded up to this size. Otherwise the connection would close while the client
#: is still sending, and the client would never read the reason. Beyond this size, the connection is closed.
DISCARDED_BODY_BYTES = 8 * 1024 * 1024
#: A request with views up to this size is decoded and checked on the event loop. Fifty views take half a millisecond;
#: the worst bodies that are refused take two.
ON_LOOP_BODY_BYTES = 16 * 1024
#: The same limit for headers and address. A browser sends one kilobyte.
ON_LOOP_HEAD_BYTES = 8 * 1024
#: Threads that open video files. An open takes a hundredth of a millisecond, unless a share hangs.
OPENING_THREADS = 4
#: Seconds within which a body must arrive. A slow client blocks no thread, but it must not keep its connection for
#: ever.
BODY_TIMEOUT_S = 30


class BodyRefused(Exception):
    """A request whose body is not read. `status` says why."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class App:
    """The application. Make it in the main process; it starts in each web process, after the fork."""

    def __init__(self, settings: StreamingSettings, buckets: BucketTable | None = None) -> None:
        self._settings = settings
        self._buckets = buckets

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        configure(self._settings)
        metrics.streaming()  # now, so that counters start at 0 before the first event
        self.prepare(create_app(self._settings, self._buckets), loop)
        self._services.publisher.start()
        # Read the folder now, so that the first viewer need not wait for it.
        threading.Thread(target=self._services.catalogue.videos, name="first scan", daemon=True).start()
        shutdown.watch(last_words=self._services.publisher.stop)
        garbage_collection.collect_rarely()

    def prepare(self, flask: Flask, loop: asyncio.AbstractEventLoop) -> None:
        """Get ready to serve this Flask app on this event loop."""
        self._flask = flask
        self._services: Services = flask.extensions["flixtrail"]
        self._flask_threads = ThreadPoolExecutor(self._settings.web_threads, thread_name_prefix="flask")
        self._file_threads = ThreadPoolExecutor(OPENING_THREADS, thread_name_prefix="files")
        self._loop = loop
        self._waker = LoopWaker(loop)

    def __rsgi_del__(self, _loop: asyncio.AbstractEventLoop) -> None:
        # All requests have ended, so every 202 has been sent. A request that still waits has no promise.
        self._flask_threads.shutdown()
        self._services.publisher.stop(shutdown.LAST_WORDS_S)

    async def __rsgi__(self, scope: Scope, proto: HTTPProtocol) -> None:
        try:
            if scope.method in METHODS and (match := STREAM_PATH.fullmatch(scope.path)):
                await self._stream(match["video_id"], scope, proto)
                return
            body = await _body(scope, proto)
            deferral = None
            if scope.path == record.PATH and len(body) <= ON_LOOP_BODY_BYTES and _has_small_head(scope):
                # Handing the request to a thread would take longer than answering it here.
                deferral = self._run_flask(scope, proto, body, wsgi.Deferral(may_block=False))
            if deferral is None or deferral.needs_thread:
                deferral = await self._loop.run_in_executor(
                    self._flask_threads, self._run_flask, scope, proto, body, wsgi.Deferral(may_block=True)
                )
            if deferral.answer is not None:
                await self._waker.when_done(deferral.answer.safe)
                proto.response_bytes(*deferral.answer.reply())
        except BodyRefused as refused:
            answer = problem(refused.status, str(refused))
            if (scope.method, scope.path) == ("POST", record.PATH):
                answer = record.count_and_trace(answer, tracing.trace_id(scope.headers.get("traceparent")))
            _send(proto, answer)
        except ProtocolClosed:
            log.debug("client went away", path=scope.path)
        except Exception:
            log.exception("request failed outside of Flask", path=scope.path)
            _send(proto, problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong here; it has been logged."))

    async def _stream(self, video_id: str, scope: Scope, proto: HTTPProtocol) -> None:
        """Send the bytes of a video. Not through Flask, which would collect the answer in memory."""
        if fault := self._services.hosts.fault(_host(scope), f"HTTP/{scope.http_version}"):
            _send(proto, problem(*fault))
            return
        catalogue = self._services.catalogue
        video = catalogue.get_nowait(video_id)
        if video is None:  # possibly a new file: the folder has to be read
            video = await self._loop.run_in_executor(self._flask_threads, catalogue.get, video_id)
        # Opened neither on the event loop nor in Flask's threads. So a share that hangs blocks only other streams.
        file = await self._loop.run_in_executor(self._file_threads, catalogue.open, video) if video else None
        if video is None or file is None:
            _send(proto, refusal(video_id, None))
            return
        reply = reply_for(video, file, scope.method, scope.headers, behind_proxy=self._settings.behind_proxy)
        if reply.detail:
            _send(proto, refusal(video_id, reply))
            return
        headers = [*reply.headers, *SAFE_HEADERS.items()]
        if reply.start == reply.end or reply.by_proxy:
            proto.response_empty(reply.status, headers)
        else:
            proto.response_file_range(reply.status, headers, file.path, reply.start, reply.end)
        if reply.start != reply.end:
            metrics.streaming().video_bytes.labels(reply.sent_by).inc(reply.end - reply.start)
            # After the bytes have been started, so that they never wait for the history.
            self._record_stream_view(scope, video_id)

    def _record_stream_view(self, scope: Scope, video_id: str) -> None:
        authorization = scope.headers.get("authorization")
        if authorization and not wsgi.has_parameter(scope.query_string, "playback"):
            self._services.stream_views.note(authorization, video_id)

    def _run_flask(self, scope: Scope, proto: HTTPProtocol, body: bytes, deferral: wsgi.Deferral) -> wsgi.Deferral:
        """Answer the request, unless Flask defers its answer, or has to run again in a thread."""
        status, headers, content = wsgi.run(self._flask, scope, body, deferral)
        if deferral.answer is None and not deferral.needs_thread:
            proto.response_bytes(status, headers, content)
        return deferral


class LoopWaker:
    """Wakes the event loop when futures end in other threads. Futures that end together wake it once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._done: deque[asyncio.Future[None]] = deque()
        self._is_woken = False

    def when_done(self, future: Future[None]) -> asyncio.Future[None]:
        """Return an asyncio future that ends when `future` has ended, with or without an error."""
        waiter = self._loop.create_future()
        future.add_done_callback(lambda _: self._add(waiter))
        return waiter

    def _add(self, waiter: asyncio.Future[None]) -> None:
        self._done.append(waiter)
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._is_woken = False  # first, so that a future that ends from now on wakes the loop again
        while self._done:
            waiter = self._done.popleft()
            if not waiter.done():  # its request may have been cancelled
                waiter.set_result(None)


async def _body(scope: Scope, proto: HTTPProtocol) -> bytes:
    """Read the whole body. Raises BodyRefused if it is too large, too slow or of unknown length, and ProtocolClosed."""
    if "transfer-encoding" in scope.headers:
        # Without a length, a body that breaks off looks complete. Half of it might be recorded.
        raise BodyRefused(HTTPStatus.LENGTH_REQUIRED, "Send a Content-Length.")
    length = int(scope.headers.get("content-length", "0"))
    if not length:
        return b""
    too_large = BodyRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body has {MAX_BODY_BYTES} bytes at the most.")
    if length > DISCARDED_BODY_BYTES:
        raise too_large
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            if length <= MAX_BODY_BYTES:
                return await proto()
            async for _chunk in proto:
                pass
    except TimeoutError:
        raise BodyRefused(HTTPStatus.REQUEST_TIMEOUT, f"The body was not here within {BODY_TIMEOUT_S} s.") from None
    raise too_large


def _host(scope: Scope) -> str | None:
    """Return the Host header. None if it is sent twice, as in `wsgi.environ`."""
    return ",".join(value for name, value in scope.headers.items() if name == "host") or None


def _has_small_head(scope: Scope) -> bool:
    return len(scope.query_string) + sum(map(len, scope.headers.values())) <= ON_LOOP_HEAD_BYTES


def _send(proto: HTTPProtocol, response: Response) -> None:
    proto.response_bytes(response.status_code, response.headers.to_wsgi_list(), response.get_data())
