"""What a service hands to its safe consumer: queues, a task for several messages, limits and a database.

A service calls `use` once, beside its Celery app. The parts of this package read `of(app)`. So they know no service.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kombu import Queue
from sqlalchemy import Engine


@dataclass(frozen=True)
class Options:
    """What one service needs of its consumer."""

    #: The work queue.
    queue: Queue
    #: Where the broker moves messages that reached the work queue's delivery limit. Each is tried once more, by itself.
    second_try_queue: Queue
    #: The name of the task that writes several messages in one transaction. No message from the broker may name it.
    group_task: str
    #: Bytes of messages in one transaction at most.
    group_bytes: int
    #: Seconds for which a message stays unacknowledged while the database is away. Then it is requeued.
    hold_s: float
    #: Returns this process's connection to the database. Called in processes of the pool only, after the fork.
    engine: Callable[[], Engine]


def use(app: Any, options: Options) -> None:
    """Hand the options of a service to its Celery app."""
    app.safe_consumer = options


def of(app: Any) -> Options:
    """Return the options of an app. Raises AttributeError if `use` was not called."""
    options: Options = app.safe_consumer
    return options
