"""Whether the app is alive, whether it can accept views, and its metrics."""

from __future__ import annotations

import os

from flask import Blueprint, Response, jsonify
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from streaming_app.problems import problem
from streaming_app.services import services

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
def metrics() -> Response:
    """Prometheus metrics of all processes of this app together."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # set by `python -m streaming_app` for its processes
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
