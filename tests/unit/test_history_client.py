"""The client of the history API: whatever answers at its address, pages are told that the history is away."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from streaming_app.history_client import HistoryAway, HistoryClient, Refused, TooManyRequests


class Answering(BaseHTTPRequestHandler):
    """Answers everything in the same way."""

    status, body = 200, b""

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b"<html>Welcome to nginx!</html>", HistoryAway),
        (200, b"\xff", HistoryAway),
        (422, b"[]", HistoryAway),
        (422, b"{}", HistoryAway),
        (422, b'{"detail": "no such cursor"}', Refused),
        (429, b"slow down", HistoryAway),
        (429, b'{"detail": "2 requests run already"}', TooManyRequests),
        (302, b"", HistoryAway),
        (500, b'{"detail": "a bug"}', HistoryAway),
        (503, b'{"detail": "The database is away."}', HistoryAway),
    ],
)
def test_every_answer_is_a_history_or_says_why_there_is_none(
    url: str, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, error: type[Exception]
) -> None:
    monkeypatch.setattr(Answering, "status", status)
    monkeypatch.setattr(Answering, "body", body)
    with pytest.raises(error):
        HistoryClient(url, "a token").history("alice")
