"""The topology: which exchanges, which queues, and what binds them. Declared here and nowhere else.

    views (topic) --view.#--> history (quorum)
                                 | given up, with a reason
                              views.dead (direct) --history--> history.died (headers)
                                 |                                |           |
                                 | views.dead                     | rejected  | delivery_limit
                                 v                                v           v
                              views.dead (quorum) <---------------+     history.alone (quorum): tried once more

What correctness needs stands in the declaration; what may be tuned over time (delivery limit, lengths, timeouts) is a
broker policy, since re-declaring a queue with other arguments fails with 406 PRECONDITION_FAILED.
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
#: Sorts what `history` gave up by the reason that the broker wrote into its headers.
DIED = Exchange("history.died", type="headers", durable=True)

#: A message that moves on to another queue stays here until that one has confirmed it. RabbitMQ takes at-least-once
#: only together with reject-publish.
AT_LEAST_ONCE = {
    "x-queue-type": "quorum",
    "x-dead-letter-exchange": DEAD.name,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}
#: In effect no limit. RabbitMQ >= 4 has one of 20 by default, and to look at a message is a delivery, too.
UNLIMITED = 1_000_000_000

#: The work queue. Quorum: written to disk before it is confirmed, and replicated where there are several nodes.
HISTORY = Queue(
    "history",
    exchange=VIEWS,
    routing_key="view.#",
    durable=True,
    queue_arguments={**AT_LEAST_ONCE, "x-dead-letter-routing-key": "history"},
)

#: Messages that reached the delivery limit of `history`, maybe only because they were held by a worker that something
#: else killed. Each is tried once more with nothing beside it (history_worker/alone.py), which counts the tries:
#: RabbitMQ 4.3 takes the delivery count of `history` along, older ones begin at 0, so that no limit here fits both.
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
    """From an exchange to a queue or to another exchange; declared as those are: `binding(channel).declare()`."""

    destination: Queue | Exchange
    source: Exchange
    routing_key: str = ""
    arguments: Mapping[str, Any] | None = None
    channel: StdChannel | None = None

    def __call__(self, channel: StdChannel) -> Binding:
        return replace(self, channel=channel)

    def declare(self, *, nowait: bool = False) -> None:
        """Both ends must be there."""
        self.destination.bind_to(
            self.source.name, self.routing_key, dict(self.arguments or {}), nowait=nowait, channel=self.channel
        )


def died_of(reason: str) -> dict[str, str]:
    """Arguments of a binding to `history.died`. RabbitMQ >= 3.10 (before, such headers could not be matched)."""
    return {"x-match": "all-with-x", "x-first-death-reason": reason}


#: In the order in which they can be declared. The reasons are all that there are:
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
    Binding(ALONE, DEAD, routing_key=ALONE.name),  # a worker publishes there anew what it tries alone
    HISTORY,
)
#: pgmq has neither dead-lettering nor bindings between exchanges; a worker puts events that are refused there itself.
LEARNER_MODE_ENTITIES = (VIEWS, DEAD, DEAD_LETTERS, HISTORY)


def routing_key(kinds: Iterable[str]) -> str:
    """`view.` and the kinds in a batch, sorted: `view.#.finished.#` then gets every batch with a finish in it."""
    return ".".join(["view", *sorted(set(kinds))])


def is_amqp(broker_url: str) -> bool:
    """Whether the broker is RabbitMQ (and not the database, as in learner mode)."""
    return broker_url.startswith("amqp")


def messages_database(broker_url: str) -> str:
    """In learner mode: the database in `pgmq://user@host:port/database`, as libpq takes it.

    A percent-encoded folder in the place of the host is that of the server's Unix socket.
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
    """Bring exchanges, queues and bindings into being; what is there already stays as it is."""
    with connection.channel() as channel:
        declare_on(channel)


def declare_on(channel: StdChannel, *, nowait: bool = False) -> None:
    """The same over a channel that is open. `nowait` asks for no answer: what the broker refuses closes the channel."""
    amqp = is_amqp(channel.connection.client.as_uri())
    for entity in ENTITIES if amqp else LEARNER_MODE_ENTITIES:
        entity(channel).declare(nowait=nowait)


def check(channel: StdChannel) -> None:
    """Raise a channel error (404 NOT_FOUND) unless the queue `history` is there. Declares nothing on the broker."""
    if not is_amqp(channel.connection.client.as_uri()):
        VIEWS(
            channel
        ).declare()  # pgmq keeps the types of exchanges in the process: without this it would take `direct`
    HISTORY(channel).queue_declare(passive=True)
