"""The usual Flask route: one task for each view."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from flask import Flask, request


def application(record: Callable[[dict[str, Any]], object]) -> Flask:
    """Make `POST /api/views`, which calls `record` (a task's `delay`) once for each view and answers 202."""
    app = Flask(__name__)

    @app.post("/api/views")
    def views() -> tuple[dict[str, Any], int]:
        sent = request.get_json()
        events = sent if isinstance(sent, list) else [sent]
        now = datetime.now(UTC).isoformat()
        for event in events:
            record({**event, "received_at": now})
        return {"accepted": len(events), "event_ids": [event["event_id"] for event in events]}, 202

    return app
