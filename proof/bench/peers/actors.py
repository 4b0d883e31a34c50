"""dramatiq: one actor message, one INSERT and one commit for each view. dramatiq always acknowledges late."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from proof.bench.peers import rows
from proof.bench.peers.web import application


class QuorumBroker(RabbitmqBroker):  # type: ignore[misc]
    """dramatiq declares classic queues. The other peers are measured on quorum queues, so this broker declares one."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return {**super()._build_queue_arguments(queue_name), "x-queue-type": "quorum"}


dramatiq.set_broker(QuorumBroker(url=os.environ["AMQP_URL"], confirm_delivery=True))


@dramatiq.actor(queue_name="actors")  # type: ignore[untyped-decorator]
def record(view: dict[str, Any]) -> None:
    rows.insert(view)


web = application(record.send)
