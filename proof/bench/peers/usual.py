"""The usual way: `task.delay()` for each view, and one INSERT and one commit for each task. Same Celery version as
ours.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from proof.bench.peers import rows, settings
from proof.bench.peers.web import application

app = Celery("usual")
app.conf.update(settings.celery("usual", prefetch_multiplier=64))


@app.task(name="usual.record")  # type: ignore[untyped-decorator]
def record(view: dict[str, Any]) -> None:
    rows.insert(view)


web = application(record.delay)
