"""Moves messages from one queue to another without losing one: copy, wait for the confirm, then acknowledge."""

from __future__ import annotations

from typing import Any

from amqp.exceptions import AMQPError, MessageNacked
from kombu import Connection
from kombu.exceptions import OperationalError
from kombu.transport.base import StdChannel

from history_worker.reasons import without_past
from view_events import topology

#: How long a connect, an answer or a confirm may take. A broker that is slower is treated as away.
TIMEOUT_S = 2
PERSISTENT = 2

#: What a broker that goes away, or does not take a message, raises. The connection is then to be thrown away: py-amqp
#: would take a late ack for that of the next message.
AWAY = (AMQPError, MessageNacked, OperationalError, OSError)


def confirming(name: str) -> dict[str, Any]:
    """Options of a kombu connection to RabbitMQ whose publishes return when the broker has the message."""
    return {
        "heartbeat": 0,  # nobody would send it between two calls
        "connect_timeout": TIMEOUT_S,
        "transport_options": {
            "confirm_publish": True,
            "read_timeout": TIMEOUT_S,
            "write_timeout": TIMEOUT_S,
            "client_properties": {"connection_name": name},
        },
    }


def open_channel(connection: Connection) -> StdChannel:
    """The first channel of a new connection. Raises one of AWAY after one attempt."""
    connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
    return connection.channel()


def drop(connection: Connection) -> None:
    """Close without a word: a goodbye would wait for a broker that is in doubt. What is held goes back."""
    connection.collect(socket_timeout=0.1)


def copy(
    channel: StdChannel,
    raw: Any,
    queue: str,
    notes: dict[str, Any] | None = None,
    *,
    exchange: str = topology.DEAD.name,
) -> None:
    """Put a copy of a message, as py-amqp got it, into one queue, without the broker's notes on its past.

    By default through `views.dead`, to which `views.dead` and `history.alone` are bound under their names. The nameless
    exchange reaches every queue, and so a worker may not write to it.

    Returns when it is confirmed; the caller then acknowledges the message. A crash between the two leaves it in both
    queues: harmless, its events have ids. Raises one of AWAY.
    """
    # The user who published it need not be ours, and the broker would refuse a wrong name.
    properties = {name: value for name, value in raw.properties.items() if name != "user_id"}
    properties["application_headers"] = without_past(properties.get("application_headers") or {}) | (notes or {})
    properties["delivery_mode"] = PERSISTENT
    channel.basic_publish(
        type(raw)(raw.body, **properties),
        exchange=exchange,
        routing_key=queue,
        mandatory=True,  # without the queue it comes back (and raises) instead of vanishing
        confirm_timeout=TIMEOUT_S,
    )
