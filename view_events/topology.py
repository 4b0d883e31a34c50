"""Declares the broker's topology: which exchanges and queues there are, and which bindings. All of it is here.

    views (topic) --view.#--> history (quorum)
                                 | dead-lettered, with a reason
                              views.dead (direct) --history--> history.died (headers)
                                 |                                |           |
                                 | views.dead                     | rejected  | delivery_limit
                                 v                                v           v
                              views.dead (quorum) <---------------+     history.alone (quorum): tried once more

A declaration contains what correctness needs. Values that you may tune over time (delivery limit, lengths, timeouts)
are in a broker policy: declaring a queue again with other arguments fails with 406 PRECONDITION_FAILED.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from kombu import Connection, Exchange, Queue
from kombu.transport.base import StdChannel
from psycopg.conninfo import make_conninfo

VIEWS = Exchange("views", type="topic", durable=True)
DEAD = Exchange("views.dead", type="direct", durable=True)
#: Sorts the dead letters of `history` by the reason that the broker wrote into their headers.
DIED = Exchange("history.died", type="headers", durable=True)

#: A message that moves to another queue stays here until that queue has confirmed it. RabbitMQ supports at-least-once
#: only together with reject-publish.
AT_LEAST_ONCE = {
    "x-queue-type": "quorum",
    "x-dead-letter-exchange": DEAD.name,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}
#: Practically no limit. Since version 4, RabbitMQ has a default limit of 20, and reading a dead letter counts as a
#: delivery, too.
UNLIMITED = 1_000_000_000

#: The work queue. A quorum queue writes messages to disk before it confirms them, and replicates them if there are
#: several nodes.
HISTORY = Queue(
    "history",
    exchange=VIEWS,
    routing_key="view.#",
    durable=True,
    queue_arguments={**AT_LEAST_ONCE, "x-dead-letter-routing-key": "history"},
)

#: Messages that reached the delivery limit of `history`. Some are innocent: something else killed the worker that had
#: them. Each is tried once more, alone. safe_consumer/second_try.py counts the tries, because no limit here fits every
#: version: RabbitMQ 4.3 keeps the delivery count of `history`, and older versions begin at 0.
ALONE = Queue(
    "history.alone",
    durable=True,
    queue_arguments={**AT_LEAST_ONCE, "x-dead-letter-routing-key": "views.dead", "x-delivery-limit": UNLIMITED},
)

DEAD_LETTERS = Queue(
    "views.dead",
    exchange=DEAD,
    routing_key="views.dead",
    durable=True,
    queue_arguments={"x-queue-type": "quorum", "x-delivery-limit": UNLIMITED},
)


@dataclass(frozen=True)
class Binding:
    """A binding from an exchange to a queue or another exchange.

    Declare it like those: `binding(channel).declare()`.
    """

    destination: Queue | Exchange
    source: Exchange
    routing_key: str = ""
    arguments: Mapping[str, Any] | None = None
    channel: StdChannel | None = None

    def __call__(self, channel: StdChannel) -> Binding:
        return replace(self, channel=channel)

    def declare(self, *, nowait: bool = False) -> None:
        """Declare the binding. Both ends must exist."""
        self.destination.bind_to(
            self.source.name, self.routing_key, dict(self.arguments or {}), nowait=nowait, channel=self.channel
        )


def died_of(reason: str) -> dict[str, str]:
    """Return the arguments of a binding to `history.died`. Before version 3.10 RabbitMQ cannot match such headers."""
    return {"x-match": "all-with-x", "x-first-death-reason": reason}


#: In an order in which they can be declared. These are all reasons that exist:
#: https://www.rabbitmq.com/docs/dlx
ENTITIES = (
    VIEWS,
    DEAD,
    DIED,
    DEAD_LETTERS,
    ALONE,
    *(Binding(DEAD_LETTERS, DIED, arguments=died_of(reason)) for reason in ("rejected", "expired", "maxlen")),
    Binding(ALONE, DIED, arguments=died_of("delivery_limit")),
    Binding(DIED, DEAD, routing_key="history"),
    Binding(ALONE, DEAD, routing_key=ALONE.name),  # a worker publishes here again what it tries alone
    HISTORY,
)
#: pgmq has neither dead-lettering nor bindings between exchanges. In learner mode a worker moves refused events to
#: `views.dead` itself.
LEARNER_MODE_ENTITIES = (VIEWS, DEAD, DEAD_LETTERS, HISTORY)


def routing_key(kinds: Iterable[str]) -> str:
    """Return `view.` and the sorted kinds of a batch. `view.#.finished.#` then matches every batch with a finish."""
    return ".".join(["view", *sorted(set(kinds))])


def is_amqp(broker_url: str) -> bool:
    """Return whether the broker is RabbitMQ. In learner mode it is the database."""
    return broker_url.startswith("amqp")


def messages_database(broker_url: str) -> str:
    """Return libpq's address of the database in `pgmq://user@host:port/database`, for learner mode.

    The host may be a percent-encoded folder: that of the server's Unix socket.
    """
    parts = urlsplit(broker_url)
    return make_conninfo(
        host=unquote(parts.hostname or "127.0.0.1"),
        port=parts.port or 5432,
        dbname=unquote(parts.path[1:]),
        user=unquote(parts.username or "postgres"),
        password=unquote(parts.password or "postgres"),
    )


def declare(connection: Connection) -> None:
    """Declare exchanges, queues and bindings. Those that exist stay as they are."""
    with connection.channel() as channel:
        declare_on(channel)


def declare_on(channel: StdChannel, *, nowait: bool = False) -> None:
    """Declare the same over an open channel.

    With `nowait` the broker does not answer; if it refuses, it closes the channel.
    """
    amqp = is_amqp(channel.connection.client.as_uri())
    for entity in ENTITIES if amqp else LEARNER_MODE_ENTITIES:
        entity(channel).declare(nowait=nowait)


def check(channel: StdChannel) -> None:
    """Check that the queue `history` exists; raises a channel error (404 NOT_FOUND). Declares nothing on the broker."""
    if not is_amqp(channel.connection.client.as_uri()):
        VIEWS(
            channel
        ).declare()  # each process of pgmq has its own exchange types: without this it would assume `direct`
    HISTORY(channel).queue_declare(passive=True)
