"""The usual way: `task.delay()` for every view, one INSERT and one commit for every task. The same Celery as ours."""

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
