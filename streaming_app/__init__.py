"""The streaming app: the library, the video bytes, and `POST /api/views`, which tells the others what was seen."""

from __future__ import annotations

from flask import Flask

from streaming_app.settings import StreamingSettings


def create_app(settings: StreamingSettings) -> Flask:
    """Wire the parts together. Start and stop `services.publisher` around it, after the process has forked."""
    # Imported here, so that `flixtrail token` can use streaming_app.auth without loading a web server and a codec.
    from celery import Celery
    from werkzeug.middleware.proxy_fix import ProxyFix

    from streaming_app import api, health, pages, problems, video_bytes, views
    from streaming_app.auth import Tokens
    from streaming_app.broker import BrokerLink
    from streaming_app.catalogue import Catalogue
    from streaming_app.history_client import HistoryClient
    from streaming_app.outbox import Outbox
    from streaming_app.publisher import Publisher
    from streaming_app.samples import samples
    from streaming_app.services import Services
    from streaming_app.stream_views import StreamViews

    celery = Celery("streaming_app", set_as_current=False)
    celery.config_from_object("celeryconfig")
    tokens = Tokens(settings.secret_key)
    outbox = Outbox(settings.outbox, settings.outbox_bytes)
    publisher = Publisher(BrokerLink(celery), outbox)
    app = Flask(__name__)
    app.extensions["flixtrail"] = Services(
        settings=settings,
        catalogue=Catalogue(settings.videos or samples(settings.cache), settings.cache),
        publisher=publisher,
        history=HistoryClient(settings.history_api_url, settings.history_api_token),
        tokens=tokens,
        stream_views=StreamViews(tokens, publisher),
    )
    if settings.behind_proxy:
        # Whether viewers come over TLS: then their cookie is for TLS alone.
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=0, x_proto=1)  # type: ignore[method-assign]
    for part in (views, api, video_bytes, pages, health):
        app.register_blueprint(part.blueprint)
    problems.install(app)
    return app
