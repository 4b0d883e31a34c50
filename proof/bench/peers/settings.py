"""The peers' Celery settings: what its guide to optimizing and its page on RabbitMQ advise for short tasks.

https://docs.celeryq.dev/en/stable/userguide/optimizing.html
https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/rabbitmq.html
"""

from __future__ import annotations

import os
from typing import Any

from kombu import Queue


def celery(queue: str, *, prefetch_multiplier: int) -> dict[str, Any]:
    """Return settings for persistent messages, confirms, late acknowledgement and a quorum queue."""
    return {
        "broker_url": os.environ["AMQP_URL"],
        "broker_transport_options": {"confirm_publish": True},
        "broker_pool_limit": int(os.environ.get("WEB_THREADS", "32")),  # one connection for each thread that publishes
        "task_queues": [Queue(queue, durable=True, queue_arguments={"x-queue-type": "quorum"})],
        "task_default_queue": queue,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_ignore_result": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_prefetch_multiplier": prefetch_multiplier,  # the guide's value for many short tasks: "64 or 128"
        "worker_detect_quorum_queues": True,
        "worker_send_task_events": False,
        "broker_connection_retry_on_startup": True,
    }
