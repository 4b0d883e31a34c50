"""celery-batches: one task for each view. Its worker collects tasks and writes many at a time.

It pins celery < 5.7, so it has a virtual environment of its own. https://celery-batches.readthedocs.io/
"""

from __future__ import annotations

from celery import Celery
from celery_batches import Batches, SimpleRequest

from proof.bench.peers import rows, settings
from proof.bench.peers.web import application

#: Its documentation: the prefetch count (this, times the processes) must be above `flush_every`.
FLUSH_EVERY = 500
FLUSH_INTERVAL_S = 0.2

app = Celery("batches")
app.conf.update(settings.celery("batches", prefetch_multiplier=FLUSH_EVERY))


@app.task(  # type: ignore[untyped-decorator]
    name="batches.record", base=Batches, flush_every=FLUSH_EVERY, flush_interval=FLUSH_INTERVAL_S
)
def record(requests: list[SimpleRequest]) -> None:
    rows.insert_many([request.args[0] for request in requests])


web = application(record.delay)
