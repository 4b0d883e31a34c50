"""The worker, with a work queue that drops what is rejected. Before the app: its configuration names the queue."""

from kombu import Queue

from view_events import topology

arguments = topology.HISTORY.queue_arguments
assert "x-dead-letter-exchange" in arguments
dropping = Queue(
    topology.HISTORY.name,
    exchange=topology.VIEWS,
    routing_key=topology.HISTORY.routing_key,
    durable=True,
    queue_arguments={"x-queue-type": arguments["x-queue-type"]},
)
topology.ENTITIES = tuple(dropping if entity is topology.HISTORY else entity for entity in topology.ENTITIES)
topology.HISTORY = dropping

from history_worker.app import app  # noqa: E402

__all__ = ["app"]
