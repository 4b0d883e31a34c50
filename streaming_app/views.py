"""Records views: `POST /api/views`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

from flask import Blueprint, Response, g, jsonify, request

from streaming_app import tracing
from streaming_app.errors import NotAccepted
from streaming_app.problems import problem
from streaming_app.services import services
from streaming_app.view_request import NotJson, Unprocessable, check, decode
from view_events import metrics

blueprint = Blueprint("views", __name__)

PATH = "/api/views"
NDJSON = "application/x-ndjson"
#: Bytes in one request: 1,000 events of 1 kB, three times what one takes.
MAX_BODY_BYTES = 1024 * 1024
#: Seconds after which a client should send again what was not accepted.
RETRY_AFTER_S = 1


@blueprint.post(PATH)
def record() -> Response:
    """202 once every event of the request is safe, with the broker or in the outbox; else a problem, and none is."""
    with metrics.streaming().record_seconds.time():
        return _record()


@blueprint.before_request
def _begin() -> None:
    g.trace_id = tracing.trace_id(request.headers.get("traceparent"))


@blueprint.after_request
def _end(response: Response) -> Response:
    return answered(response, g.trace_id)


def answered(response: Response, trace_id: str) -> Response:
    """Count an answer, and say its trace id in it. `rsgi` does so as well for what it answers before Flask."""
    metrics.streaming().record_requests.labels(str(response.status_code)).inc()
    response.headers[tracing.HEADER] = trace_id
    return response


def _record() -> Response:
    caller = services().tokens.caller(request)
    if request.mimetype not in {"application/json", NDJSON}:
        return problem(415, f"Send application/json (an object or an array) or {NDJSON}.")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        return problem(415, "Send the body as it is, without a Content-Encoding.")
    request.max_content_length = MAX_BODY_BYTES
    try:
        views = decode(request.get_data(cache=False), lines=request.mimetype == NDJSON)
        events = check(views, caller, datetime.now(UTC), services().catalogue.knows, g.trace_id)
    except NotJson as error:
        return problem(400, str(error))
    except Unprocessable as error:
        return problem(422, "Nothing was recorded.", errors=[asdict(fault) for fault in error.errors])
    ids = [str(event.event_id) for event in events]
    try:
        services().publisher.publish(events)
    except NotAccepted as reason:
        detail = f"Not recorded: {reason}. Send the same events again with these ids."
        return problem(503, detail, {"Retry-After": str(RETRY_AFTER_S)}, event_ids=ids)
    metrics.streaming().accepted.inc(len(ids))
    return Response(jsonify(accepted=len(ids), event_ids=ids).data, 202, mimetype="application/json")
