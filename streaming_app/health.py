"""Whether the app is alive, whether it can accept views, and its metrics."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from streaming_app.outbox import bytes_in
from streaming_app.problems import problem
from streaming_app.services import services
from view_events import metrics

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """200 while the process answers at all."""
    return jsonify(status="alive")


@blueprint.get("/readyz")
def readyz() -> Response:
    """200 when views can be accepted: through the broker or, while that is away, into the outbox."""
    if services().publisher.ready:
        return jsonify(status="ready")
    return problem(503, "Views cannot be accepted: no broker, and the outbox cannot store any.", {"Retry-After": "1"})


@blueprint.get("/metrics")
def show_metrics() -> Response:
    """Prometheus metrics of all processes of this app together."""
    settings = services().settings
    figures = metrics.streaming()
    figures.outbox_bytes.set(bytes_in(settings.outbox))
    figures.outbox_limit_bytes.set(settings.outbox_bytes)
    content, content_type = metrics.exposition()
    return Response(content, content_type=content_type)
