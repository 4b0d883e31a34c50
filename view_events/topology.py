"""The topology: which exchange, which queues, and what binds them. Declared here and nowhere else.

    views (topic) --view.#--> history (quorum) --rejected--> views.dead (direct) --> views.dead (quorum)

What correctness needs stands in the declaration; what may be tuned over time (delivery limit, lengths, timeouts) is a
broker policy, since re-declaring a queue with other arguments fails with 406 PRECONDITION_FAILED.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from kombu import Connection, Exchange, Queue
from kombu.transport.base import StdChannel
from psycopg.conninfo import make_conninfo

VIEWS = Exchange("views", type="topic", durable=True)
DEAD = Exchange("views.dead", type="direct", durable=True)

#: The work queue. Quorum: written to disk before it is confirmed, and replicated where there are several nodes.
HISTORY = Queue(
    "history",
    exchange=VIEWS,
    routing_key="view.#",
    durable=True,
    queue_arguments={
        "x-queue-type": "quorum",
        # A message that a worker rejects moves on to `views.dead`; the broker keeps it here until the other queue has
        # confirmed it. RabbitMQ takes at-least-once only together with reject-publish.
        "x-dead-letter-exchange": DEAD.name,
        "x-dead-letter-routing-key": "history",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    },
)

DEAD_LETTERS = Queue(
    "views.dead",
    exchange=DEAD,
    routing_key="history",
    durable=True,
    queue_arguments={"x-queue-type": "quorum"},
)


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
    """Bring exchanges, queues and bindings into being; what is there already stays as it is.

    Workers do so on every connect, so that a binding that somebody deleted comes back.
    """
    with connection.channel() as channel:
        for entity in (VIEWS, DEAD, DEAD_LETTERS, HISTORY):
            entity(channel).declare()


def check(channel: StdChannel) -> None:
    """Raise a channel error (404 NOT_FOUND) unless the queue `history` is there. Declares nothing on the broker."""
    if not is_amqp(channel.connection.client.as_uri()):
        VIEWS(
            channel
        ).declare()  # pgmq keeps the types of exchanges in the process: without this it would take `direct`
    HISTORY(channel).queue_declare(passive=True)
