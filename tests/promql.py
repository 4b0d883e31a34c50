"""PromQL of the dashboard and of the alerts: which metrics an expression asks for, and which there are."""

from __future__ import annotations

import re

#: What the services count in, and how full things are.
COUNTERS_AND_GAUGES = {
    # the streaming app
    "flixtrail_views_accepted_total",
    "flixtrail_messages_total",
    "flixtrail_limited_total",
    "flixtrail_broker_up",
    "flixtrail_outbox_events",
    "flixtrail_outbox_refused_total",
    "flixtrail_outbox_stored_total",
    "flixtrail_outbox_bytes",
    "flixtrail_outbox_limit_bytes",
    "flixtrail_video_bytes_total",
    "flixtrail_record_requests_total",
    # a history worker
    "flixtrail_views_stored_total",
    "flixtrail_views_known_total",
    "flixtrail_views_refused_total",
    "flixtrail_deliveries_total",
    "flixtrail_database_up",
    "flixtrail_in_the_way_total",
    "flixtrail_consuming",
    # the history API
    "flixtrail_history_requests_total",
}
HISTOGRAMS = {
    "flixtrail_message_events",
    "flixtrail_record_seconds",
    "flixtrail_batch_events",
    "flixtrail_commit_seconds",
    "flixtrail_view_age_seconds",
    "flixtrail_history_request_seconds",
}
#: What the services export, beside RabbitMQ's own exporter.
FLIXTRAIL = COUNTERS_AND_GAUGES | {f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum", "count")}
#: Seen in the exporters of RabbitMQ 4.0.5 and 4.3.6. `detailed`: from /metrics/detailed, with a label `queue`.
RABBITMQ = {
    "rabbitmq_alarms_free_disk_space_watermark",
    "rabbitmq_alarms_memory_used_watermark",
    "rabbitmq_detailed_queue_consumers",
    "rabbitmq_detailed_queue_messages",
    "rabbitmq_detailed_queue_messages_acked_total",
    "rabbitmq_detailed_queue_messages_delivered_ack_total",
    "rabbitmq_detailed_queue_messages_ready",
    "rabbitmq_detailed_queue_messages_redelivered_total",
    "rabbitmq_detailed_queue_messages_unacked",
    "rabbitmq_disk_space_available_bytes",
    "rabbitmq_disk_space_available_limit_bytes",
    "rabbitmq_global_messages_dead_lettered_delivery_limit_total",
    "rabbitmq_global_messages_dead_lettered_rejected_total",
    "rabbitmq_process_resident_memory_bytes",
    "rabbitmq_resident_memory_limit_bytes",
}
KNOWN = FLIXTRAIL | RABBITMQ | {"up"}

#: What is no metric in an expression: strings, label matchers, ranges, lists of labels, functions, words, numbers.
NO_METRIC = (
    r'"[^"]*"',
    r"\{[^}]*\}",
    r"\[[^\]]*\]",
    r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)",
    r"\b\w+\s*(?=\()",
    r"\b(?:and|or|unless|bool|offset)\b",
    r"\b[\d.]+(?:e\d+)?\b",
)


def metrics(expression: str) -> set[str]:
    """The names of the metrics that an expression asks for."""
    for pattern in NO_METRIC:
        expression = re.sub(pattern, " ", expression)
    return set(re.findall(r"[a-zA-Z_:]\w*", expression))
