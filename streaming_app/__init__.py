"""The streaming app: serves the library and the video bytes, and records views (`POST /api/views`).

A recorded view goes to RabbitMQ, where the history workers and other services get it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from streaming_app.recording.token_buckets import BucketTable
    from streaming_app.settings import StreamingSettings


def create_app(settings: StreamingSettings, buckets: BucketTable | None = None) -> Flask:
    """Build the Flask app and its parts.

    Start `services.publisher` after the process has forked, and stop it at the end. Make `buckets` before the fork, so
    that all processes count in the same table.
    """
    # Imported here: `flixtrail token` and `flixtrail watch` use modules of this package, and need neither a web server
    # nor a codec. That saves half a second of each command.
    from celery import Celery
    from flask import Flask
    from werkzeug.middleware.proxy_fix import ProxyFix

    from service.host_header import Hosts
    from streaming_app.access.auth import Tokens
    from streaming_app.dependencies import Services
    from streaming_app.history_client import HistoryClient
    from streaming_app.recording.broker import BrokerLink
    from streaming_app.recording.outbox import Outbox
    from streaming_app.recording.publisher import Publisher
    from streaming_app.recording.rate_limits import Limits
    from streaming_app.recording.stream_views import StreamViews
    from streaming_app.recording.token_buckets import BucketTable
    from streaming_app.routes import api, health, pages, problems, record, security, video_bytes
    from streaming_app.videos.catalogue import Catalogue
    from streaming_app.videos.samples import samples

    celery = Celery("streaming_app", set_as_current=False)
    celery.config_from_object("celeryconfig")
    tokens = Tokens(settings.secret_key, behind_proxy=settings.behind_proxy, revoked=settings.revoked_tokens)
    outbox = Outbox(settings.outbox, settings.outbox_bytes)
    publisher = Publisher(BrokerLink(celery), outbox)
    hosts = Hosts(settings.allowed_hosts)
    app = Flask(__name__)
    app.extensions["flixtrail"] = Services(
        settings=settings,
        catalogue=Catalogue(settings.videos or samples(settings.cache), settings.cache, settings.reader_memory_bytes),
        publisher=publisher,
        history=HistoryClient(settings.history_api_url, settings.history_api_token),
        tokens=tokens,
        stream_views=StreamViews(tokens, publisher, settings.secret_key),
        hosts=hosts,
        limits=Limits(settings, buckets or BucketTable()),
    )
    if settings.behind_proxy:
        # `x_proto`: if viewers come over TLS, their cookie is marked as Secure.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=0, x_proto=1)  # type: ignore[method-assign]
    # No redirects: a redirect would name the host of the request, which anybody can choose.
    app.url_map.merge_slashes = False
    security.install(app, hosts)
    for part in (record, api, video_bytes, pages, health):
        app.register_blueprint(part.blueprint)
    problems.install(app)
    return app
