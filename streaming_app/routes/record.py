"""Records views: `POST /api/views`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from time import perf_counter

import msgspec
from flask import Blueprint, Response, g, request

from service import metrics, tracing
from service.safe_headers import NO_SNIFFING
from streaming_app import wsgi
from streaming_app.dependencies import services
from streaming_app.recording.errors import NotJson, TooMany, Unprocessable
from streaming_app.recording.request import check, decode
from streaming_app.routes.problems import problem, too_many
from view_events.event import ViewEvent

blueprint = Blueprint("views", __name__)

PATH = "/api/views"
NDJSON = "application/x-ndjson"
#: Seconds after which a client should send again if the answer is 503.
RETRY_AFTER_S = 1


@blueprint.post(PATH)
def record() -> Response:
    """Record the events of a request. 202 when every event is safe, with the broker or in the outbox. Otherwise a
    problem, which promises nothing for any event.

    No thread waits for 202 or 503: `rsgi` sends the RecordAnswer when it is known. If the thread must not block and a
    video is unknown, `rsgi` runs this again in a thread that may. Other problems are returned at once.
    """
    deferral: wsgi.Deferral = request.environ[wsgi.DEFERRAL]
    parts = services()
    caller = parts.tokens.caller(request)
    if detail := _wrong_content_type():
        return problem(415, detail)
    knows = parts.catalogue.knows if deferral.may_block else parts.catalogue.knows_nowait
    undecided: set[str] = set()

    def known(video_id: str) -> bool:
        answer = knows(video_id)
        if answer is None:
            undecided.add(video_id)
        return answer is not False

    limit = parts.limits.events_of_request(caller)
    try:
        views = decode(request.get_data(cache=False), lines=request.mimetype == NDJSON, limit=limit)
        events = check(views, caller, datetime.now(UTC), known, g.trace_id, duration_s=parts.catalogue.duration_s)
    except (NotJson, Unprocessable) as error:
        if caller.by_cookie:
            parts.limits.count(caller, request, 1)  # counts as one event: it costs work, although nothing is recorded
        return _invalid(error)
    if undecided:
        if not deferral.may_block:
            deferral.needs_thread = True  # possibly a new video: the folder has to be read
            return wsgi.DEFERRED
        # The views are not refused for good only because a share is away or still being read.
        return _send_again("the library cannot be read just now", event_ids(events))
    try:
        parts.limits.count(caller, request, len(events))
    except TooMany as error:
        return too_many(error, event_ids=event_ids(events))
    deferral.answer = RecordAnswer(events, parts.publisher.submit(events), g.trace_id, g.began)
    return wsgi.DEFERRED


@dataclass(frozen=True, slots=True)
class RecordAnswer:
    """The answer to send when `safe` has ended."""

    events: Sequence[ViewEvent]
    safe: Future[None]
    trace_id: str
    began: float

    def reply(self) -> wsgi.Reply:
        """Return 202 with the ids, or 503 with the ids to send again. Counts the answer, because it is about to be
        sent.
        """
        ids = event_ids(self.events)
        reason = self.safe.exception()
        if reason is not None:
            response = _send_again(str(reason), ids)
            count_and_trace(response, self.trace_id, self.began)
            return response.status_code, response.headers.to_wsgi_list(), response.get_data()
        metrics.streaming().accepted.inc(len(ids))
        _count(HTTPStatus.ACCEPTED, self.began)
        content = msgspec.json.encode({"accepted": len(ids), "event_ids": ids})
        # No Response object: making one would take longer than the rest of the answer.
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
            NO_SNIFFING,
            (tracing.HEADER, self.trace_id),
        ]
        return HTTPStatus.ACCEPTED.value, headers, content


def event_ids(events: Sequence[ViewEvent]) -> list[str]:
    """Return the ids as they appear in JSON."""
    ids: list[str] = msgspec.to_builtins([event.event_id for event in events])
    return ids


def _send_again(reason: str, ids: list[str]) -> Response:
    detail = f"Not recorded: {reason}. Send the same events again with these ids."
    return problem(503, detail, {"Retry-After": str(RETRY_AFTER_S)}, event_ids=ids)


@blueprint.before_request
def _begin() -> None:
    g.began = perf_counter()
    g.trace_id = tracing.trace_id(request.headers.get("traceparent"))


@blueprint.after_request
def _end(response: Response) -> Response:
    if "began" not in g:  # a request for another host ended before `began` was set
        return response
    is_answered = response is wsgi.DEFERRED or tracing.HEADER in response.headers
    return response if is_answered else count_and_trace(response, g.trace_id, g.began)


def count_and_trace(response: Response, trace_id: str, began: float | None = None) -> Response:
    """Count an answer and add its trace id. `rsgi` calls it, too, for answers that it gives before Flask."""
    _count(response.status_code, began)
    response.headers[tracing.HEADER] = trace_id
    return response


def _count(status: int, began: float | None) -> None:
    if began is not None:
        metrics.streaming().record_seconds.observe(perf_counter() - began)
    metrics.streaming().record_requests.labels(str(int(status))).inc()


def _wrong_content_type() -> str | None:
    if request.mimetype not in {"application/json", NDJSON}:
        return f"Send application/json (an object or an array) or {NDJSON}."
    if request.headers.get("Content-Encoding", "identity") != "identity":
        return "Send the body as it is, without a Content-Encoding."
    return None


def _invalid(error: NotJson | Unprocessable) -> Response:
    if isinstance(error, NotJson):
        return problem(400, str(error))
    errors = [asdict(fault) for fault in error.errors]
    return problem(422, str(error), errors=errors, more_events=error.more_events)
