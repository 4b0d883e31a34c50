"""Health endpoints: whether the app is alive, whether it can accept views, and its metrics."""

from __future__ import annotations

from collections.abc import Iterable
from hmac import compare_digest
from ipaddress import ip_address

from flask import Blueprint, Request, Response, jsonify, request

from service import metrics
from service.settings import LOOPBACK
from streaming_app.dependencies import services
from streaming_app.recording.outbox import bytes_in
from streaming_app.routes.problems import problem
from streaming_app.settings import Network, StreamingSettings

#: Headers that a proxy adds. With one of them, a request comes from elsewhere, even if its address is this machine's.
FORWARDED = ("X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Via")

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Answer 200 as long as the process answers at all."""
    return jsonify(status="alive")


@blueprint.get("/readyz")
def readyz() -> Response:
    """Answer 200 if views can be accepted: by the broker or, while it is away, by the outbox.

    Not ready before the folder of videos has been read for the first time: until then no video id can be checked.
    """
    if not services().catalogue.has_scanned:
        return problem(503, "The folder of videos is being looked at for the first time.", {"Retry-After": "1"})
    if services().publisher.ready:
        return jsonify(status="ready")
    return problem(503, "Views cannot be accepted: no broker, and the outbox cannot store any.", {"Retry-After": "1"})


@blueprint.get("/metrics")
def show_metrics() -> Response:
    """Answer with the Prometheus metrics of all processes of this app. Permitted for this machine, METRICS_FROM and
    METRICS_TOKEN.
    """
    settings = services().settings
    if not may_see_metrics(request, settings):
        return problem(403, "Metrics are for this machine. From elsewhere, use METRICS_TOKEN or METRICS_FROM.")
    figures = metrics.streaming()
    figures.outbox_bytes.set(bytes_in(settings.outbox))
    figures.outbox_limit_bytes.set(settings.outbox_bytes)
    content, content_type = metrics.exposition()
    return Response(content, content_type=content_type)


def may_see_metrics(request: Request, settings: StreamingSettings) -> bool:
    """Return whether a request has the token, or comes directly (not through a proxy) from a permitted network."""
    given = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if settings.metrics_token and compare_digest(given.encode(), settings.metrics_token.encode()):
        return True
    if any(name in request.headers for name in FORWARDED):
        return False
    if settings.behind_proxy and "X-Real-IP" in request.headers:
        # The request came through our own proxy. If that is published to others, it cannot tell who sent the request.
        return settings.published_on in LOOPBACK
    if "X-Real-IP" in request.headers or "X-Forwarded-Proto" in request.headers:
        return False
    return _is_in(request.remote_addr or "", settings.metrics_from)


def _is_in(address: str, networks: Iterable[Network]) -> bool:
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_loopback or any(ip in network for network in networks)
