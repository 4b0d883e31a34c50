"""The streaming app's metrics: every name, label and unit in one place."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

ACCEPTED = Counter("flixtrail_views_accepted_total", "View events answered 202.")
PUBLISHED = Counter(
    "flixtrail_messages_total",
    "Messages to the broker, by outcome: confirmed, in_doubt, returned (no queue took it: the topology is damaged).",
    ["outcome"],
)
BATCH_EVENTS = Histogram(
    "flixtrail_message_events", "Events in one message.", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
)
BROKER_UP = Gauge("flixtrail_broker_up", "1 while the broker confirms.", multiprocess_mode="liveall")
OUTBOX_EVENTS = Gauge(
    "flixtrail_outbox_events", "View events that wait in the outbox for the broker.", multiprocess_mode="livesum"
)
OUTBOX_STORED = Counter("flixtrail_outbox_stored_total", "View events committed to the outbox.")
