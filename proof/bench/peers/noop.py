"""The upper limit of the web server: a Flask route that reads nothing, on the streaming app's own server and threads.

The difference between the two rates is the streaming app's work for a view: authenticate, decode, check, publish and
wait for the confirm.
"""

from __future__ import annotations

import asyncio

from flask import Flask, Response

from service.logs import configure
from service.settings import read
from streaming_app.__main__ import server
from streaming_app.rsgi import App
from streaming_app.settings import StreamingSettings

ANSWER = b'{"accepted":1}'


class NoopApp(App):
    """The same event loop and threads, with another Flask application."""

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        configure(self._settings)
        flask = Flask(__name__)
        flask.extensions["flixtrail"] = None
        flask.post("/noop")(lambda: Response(ANSWER, 202, mimetype="application/json"))
        self.prepare(flask, loop)

    def __rsgi_del__(self, _loop: asyncio.AbstractEventLoop) -> None:
        self._flask_threads.shutdown()


def main() -> None:
    settings = read(StreamingSettings)
    configure(settings)
    app = NoopApp(settings)
    server(settings, settings.host).serve(target_loader=lambda: app, wrap_loader=False)  # type: ignore[arg-type, return-value]


if __name__ == "__main__":
    main()
