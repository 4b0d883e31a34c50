"""Records views: `POST /api/views`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from time import perf_counter

import msgspec
from flask import Blueprint, Response, g, request

from streaming_app import tracing, wsgi
from streaming_app.problems import problem
from streaming_app.services import Services, services
from streaming_app.view_request import NotJson, Unprocessable, check, decode
from view_events import metrics
from view_events.event import ViewEvent

blueprint = Blueprint("views", __name__)

PATH = "/api/views"
NDJSON = "application/x-ndjson"
#: Bytes in one request: 1,000 events of 1 kB, three times what one takes.
MAX_BODY_BYTES = 1024 * 1024
#: Seconds after which a client should send again what was not accepted.
RETRY_AFTER_S = 1


@blueprint.post(PATH)
def record() -> Response:
    """202 once every event of the request is safe, with the broker or in the outbox; else a problem, and none is.

    Under `rsgi` no thread waits for that: the answer is left in the request's environment, for later.
    """
    later: wsgi.Later | None = request.environ.get(wsgi.LATER)
    parts = services()
    may_wait = later is None or later.may_wait
    found = _record(parts, parts.catalogue.knows if may_wait else parts.catalogue.at_hand)
    if isinstance(found, Response):
        if later and not may_wait and found.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
            later.again = True  # a video that is new, perhaps: the folder has to be looked at
            return wsgi.UNSENT
        return found
    answer = Answer(found, parts.publisher.submit(found), g.trace_id, g.began)
    if later:
        later.answer = answer
        return wsgi.UNSENT
    wait([answer.safe])
    status, headers, content = answer.reply()
    return Response(content, status, headers)


@dataclass(frozen=True, slots=True)
class Answer:
    """What to say once `safe` has ended."""

    events: Sequence[ViewEvent]
    safe: Future[None]
    trace_id: str
    began: float

    def reply(self) -> wsgi.Reply:
        """202 with the ids, or 503 with the same, to send them again. Counted, as it is about to be sent."""
        ids = msgspec.to_builtins([event.event_id for event in self.events])
        reason = self.safe.exception()
        if reason is not None:
            detail = f"Not recorded: {reason}. Send the same events again with these ids."
            response = problem(503, detail, {"Retry-After": str(RETRY_AFTER_S)}, event_ids=ids)
            answered(response, self.trace_id, self.began)
            return response.status_code, response.headers.to_wsgi_list(), response.get_data()
        metrics.streaming().accepted.inc(len(ids))
        _count(HTTPStatus.ACCEPTED, self.began)
        content = msgspec.json.encode({"accepted": len(ids), "event_ids": ids})
        # Without a Response between: it would take longer than the rest of the answer.
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
            (tracing.HEADER, self.trace_id),
        ]
        return HTTPStatus.ACCEPTED.value, headers, content


@blueprint.before_request
def _begin() -> None:
    g.began = perf_counter()
    g.trace_id = tracing.trace_id(request.headers.get("traceparent"))


@blueprint.after_request
def _end(response: Response) -> Response:
    is_answered = response is wsgi.UNSENT or tracing.HEADER in response.headers
    return response if is_answered else answered(response, g.trace_id, g.began)


def answered(response: Response, trace_id: str, began: float | None = None) -> Response:
    """Count an answer, and say its trace id in it. `rsgi` does so as well for what it answers before Flask."""
    _count(response.status_code, began)
    response.headers[tracing.HEADER] = trace_id
    return response


def _count(status: int, began: float | None) -> None:
    if began is not None:
        metrics.streaming().record_seconds.observe(perf_counter() - began)
    metrics.streaming().record_requests.labels(str(int(status))).inc()


def _record(parts: Services, known: Callable[[str], object]) -> Response | list[ViewEvent]:
    """The events of the request, or what is wrong with it. `known`: whether there is a video with this id."""
    caller = parts.tokens.caller(request)
    if request.mimetype not in {"application/json", NDJSON}:
        return problem(415, f"Send application/json (an object or an array) or {NDJSON}.")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        return problem(415, "Send the body as it is, without a Content-Encoding.")
    request.max_content_length = MAX_BODY_BYTES
    try:
        views = decode(request.get_data(cache=False), lines=request.mimetype == NDJSON)
        return check(views, caller, datetime.now(UTC), known, g.trace_id)
    except NotJson as error:
        return problem(400, str(error))
    except Unprocessable as error:
        return problem(422, "Nothing was recorded.", errors=[asdict(fault) for fault in error.errors])
