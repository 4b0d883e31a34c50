"""Every metric of every service: names, labels and units in one place. docs/metrics.md is made from it:

    python -m service.metrics > docs/metrics.md

A process makes the metrics of its service when it first asks for them. Before that, service/metrics_files.py must have
made the folder for them. If the process is forked, ask after the fork.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from service import metrics_files

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics import MetricWrapperBase

#: Events of one message (up to 2,000) or transaction (up to some 3,000).
EVENT_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 3000, 5000)
#: Seconds of something that should take milliseconds, and at the most the deadline of a request.
REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
#: Why a worker's statement did not finish although PostgreSQL was there.
IN_THE_WAY = ("too-slow", "lock", "deadlock", "conflict", "cancelled")
#: Seconds of something that waits while PostgreSQL is away.
OUTAGE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1200)
#: Seconds from end to end: 5 ms on an idle machine, up to an hour in a queue or an outbox.
AGE_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 1800, 3600)

#: Acquire this lock to count in a process that another thread may fork. Otherwise the process may be forked while
#: another thread has prometheus-client's own lock, and the new process waits for that lock for ever.
NO_FORK = Lock()
os.register_at_fork(before=NO_FORK.acquire, after_in_parent=NO_FORK.release, after_in_child=NO_FORK.release)


T = TypeVar("T")


class Streaming:
    """The streaming app: all of its web processes together."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        #: Events of requests that were answered 202.
        self.accepted = Counter("flixtrail_views_accepted_total", "View events answered 202.")
        #: Messages. `outcome`: confirmed, in_doubt (no confirm, a nack, a lost connection), returned, refused.
        self.messages = Counter(
            "flixtrail_messages_total",
            "Messages to the broker, by outcome: confirmed, in_doubt, returned (no queue took it: a binding or a queue "
            "is missing), refused (the broker refuses this message because of its routing key or its size).",
            ["outcome"],
        )
        for outcome in ("confirmed", "in_doubt", "returned", "refused"):
            self.messages.labels(outcome)
        #: Events in one confirmed message.
        self.message_events = Histogram("flixtrail_message_events", "Events in one message.", buckets=EVENT_BUCKETS)
        #: 0 or 1 for each web process (label `pid`).
        self.broker_up = Gauge("flixtrail_broker_up", "1 while the broker confirms.", multiprocess_mode="liveall")
        #: Events in the files that the web processes own.
        self.outbox_events = Gauge(
            "flixtrail_outbox_events",
            "View events that wait in the outbox for the broker.",
            multiprocess_mode="livesum",
        )
        #: Events.
        self.outbox_stored = Counter("flixtrail_outbox_stored_total", "View events committed to the outbox.")
        #: Events.
        self.outbox_refused = Counter(
            "flixtrail_outbox_refused_total",
            "View events put aside in the outbox, because the broker refuses them for good.",
        )
        #: Bytes, measured when scraped. Replicas that share the folder have the same value.
        self.outbox_bytes = Gauge(
            "flixtrail_outbox_bytes",
            "Bytes of all files in the outbox folder.",
            multiprocess_mode="livemostrecent",
        )
        #: Bytes; constant.
        self.outbox_limit_bytes = Gauge(
            "flixtrail_outbox_limit_bytes",
            "How many bytes the files in the outbox folder may have together (OUTBOX_BYTES).",
            multiprocess_mode="livemostrecent",
        )
        #: Bytes of the ranges that answers promised. A client that leaves early gets fewer. `sent_by`: app, or proxy
        #: (nginx).
        self.video_bytes = Counter(
            "flixtrail_video_bytes_total",
            "Bytes of video that answers to GET promised, by the server that sends them.",
            ["sent_by"],
        )
        for sender in ("app", "proxy"):
            self.video_bytes.labels(sender)
        #: Requests. `status`: the HTTP status.
        self.record_requests = Counter(
            "flixtrail_record_requests_total", "Answers to POST /api/views, by HTTP status.", ["status"]
        )
        for status in (202, 400, 401, 403, 408, 411, 413, 415, 422, 429, 500, 503):
            self.record_requests.labels(str(status))
        #: `what`: events of requests that were answered 429, new_viewers that got no cookie.
        self.limited = Counter(
            "flixtrail_limited_total",
            "What was over a limit, by kind: events (answered 429), new_viewers (browsers that got no cookie).",
            ["what"],
        )
        for what in ("events", "new_viewers"):
            self.limited.labels(what)
        #: Seconds, from the beginning of the view function to its answer.
        self.record_seconds = Histogram(
            "flixtrail_record_seconds", "Seconds that POST /api/views took to answer.", buckets=REQUEST_BUCKETS_S
        )


class Worker:
    """A history worker: its parent and the processes of its pool together, including those that died."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        #: Rows. A process that is killed right after its commit has not counted it.
        self.stored = Counter("flixtrail_views_stored_total", "View events stored: new rows.")
        #: Events.
        self.known = Counter(
            "flixtrail_views_known_total",
            "View events that changed nothing: they were stored before, or their viewer was erased.",
        )
        #: Events; a message whose events cannot be read counts as one. `kind`: those of `flixtrail dead list`.
        self.refused = Counter(
            "flixtrail_views_refused_total", "View events that became dead letters, by reason.", ["kind"]
        )
        #: Messages that a process of the pool began with. `redelivered`: yes, no.
        self.deliveries = Counter(
            "flixtrail_deliveries_total", "Messages delivered, by whether they were redelivered.", ["redelivered"]
        )
        for redelivered in ("yes", "no"):
            self.deliveries.labels(redelivered)
        #: Events in one batch: a message, or several that were written together.
        self.batch_events = Histogram("flixtrail_batch_events", "View events in one batch.", buckets=EVENT_BUCKETS)
        #: Seconds; a batch that waits for PostgreSQL takes as long as that.
        self.commit_seconds = Histogram(
            "flixtrail_commit_seconds",
            "Seconds from the start of a task to its commit, including the time it waits for PostgreSQL.",
            buckets=OUTAGE_BUCKETS_S,
        )
        #: Seconds between two clocks: the streaming host's at its request, this one's at the commit.
        self.view_age_seconds = Histogram(
            "flixtrail_view_age_seconds",
            "Seconds from the request to the commit, of the oldest view event of a batch.",
            buckets=AGE_BUCKETS_S,
        )
        #: 0 or 1: 0 if at least one process of the pool has lost PostgreSQL. 1 before any process has used it.
        self.database_up = Gauge(
            "flixtrail_database_up", "0 while PostgreSQL is away or cannot write.", multiprocess_mode="livemin"
        )
        self.database_up.set(1)
        #: Statements. `why`: those of IN_THE_WAY.
        self.in_the_way = Counter(
            "flixtrail_in_the_way_total",
            "Statements that PostgreSQL ended before they were done: too-slow (longer than 8 s), lock (waited longer "
            "than 5 s for a lock), deadlock, conflict (with another transaction), cancelled (somebody cancelled it).",
            ["why"],
        )
        for why in IN_THE_WAY:
            self.in_the_way.labels(why)
        #: 0 or 1, set by the parent. It stays 0 in the processes of the pool.
        self.consuming = Gauge(
            "flixtrail_consuming",
            "1 while the worker takes messages; 0 while the broker is away, or while the worker is paused because "
            "PostgreSQL has been away for long.",
            multiprocess_mode="livemax",
        )


class HistoryApi:
    """The history API."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Histogram

        #: Requests. `route`: as it is in the code, never with an id in it; `none` if the path has no route.
        self.requests = Counter(
            "flixtrail_history_requests_total", "Requests, by route and HTTP status.", ["route", "status"]
        )
        #: Seconds. `route`: as above.
        self.request_seconds = Histogram(
            "flixtrail_history_request_seconds", "Seconds that a request took.", ["route"], buckets=REQUEST_BUCKETS_S
        )


class Once(Generic[T]):
    """Makes something once, when it is first needed, even if two threads ask at once.

    prometheus-client refuses a second metric of the same name.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._making = Lock()
        self._made: T | None = None

    def __call__(self) -> T:
        if self._made is None:
            with self._making:
                self._made = self._made or self._make()
        return self._made


#: The metrics of this process.
streaming = Once(Streaming)
worker = Once(Worker)
history_api = Once(HistoryApi)


def registry() -> CollectorRegistry:
    """Return what `/metrics` shows: all processes of the service together, or this process if it is the only one."""
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.multiprocess import MultiProcessCollector

    if metrics_files.VARIABLE not in os.environ:
        return REGISTRY
    metrics_files.forget_dead_processes()
    together = CollectorRegistry()
    MultiProcessCollector(together)  # type: ignore[no-untyped-call]
    return together


def exposition() -> tuple[bytes, str]:
    """Return the content and the content type of `/metrics`."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return generate_latest(registry()), CONTENT_TYPE_LATEST


# -- docs/metrics.md ---------------------------------------------------------------------------------------

#: Heading, where they are found, and who makes them.
SERVICES: tuple[tuple[str, str, Callable[[], object]], ...] = (
    ("Streaming app", "`GET /metrics` on its own port (`PORT`).", streaming),
    (
        "History worker",
        "`GET /metrics` on `METRICS_HOST`, `METRICS_PORT`. If `METRICS_PORT` is not set, there are no metrics.",
        worker,
    ),
    ("History API", "`GET /metrics` on its own port (`HISTORY_API_PORT`), without a token.", history_api),
)


def page() -> Iterator[str]:
    """Yield docs/metrics.md, line by line."""
    yield "# Metrics"
    yield ""
    yield "Prometheus reads these. Each service shows its own metrics, for all of its processes together. Counters and"
    yield "histograms begin at 0 when the service starts, and go on if one of its processes dies. This page comes from"
    yield "[`service/metrics.py`](../service/metrics.py): `python -m service.metrics > docs/metrics.md`."
    for heading, where, made in SERVICES:
        yield from ("", f"## {heading}", "", where, "", "| name | type | labels | what |", "| --- | --- | --- | --- |")
        yield from (_row(metric) for metric in vars(made()).values())


def _row(metric: MetricWrapperBase) -> str:
    (about,) = metric.describe()
    name = f"{about.name}_total" if about.type == "counter" else about.name
    labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 (there is no public attribute)
    if getattr(metric, "_multiprocess_mode", "") == "liveall":
        labels = "`pid`"
    return f"| `{name}` | {about.type} | {labels} | {about.documentation} |"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in page())
