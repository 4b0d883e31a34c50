"""A connection to RabbitMQ for publishing: one attempt to connect, and a publish returns after the broker's confirm.

After any error throw the connection away (`drop`). py-amqp cannot tell which message an ack belongs to, so on a reused
connection the late ack of a lost message would confirm the next one.
"""

from __future__ import annotations

from typing import Any

from amqp.exceptions import AMQPError, MessageNacked
from kombu import Connection
from kombu.exceptions import OperationalError
from kombu.transport.base import StdChannel

#: Seconds for a connect, an answer or a confirm. A broker that is slower counts as away.
TIMEOUT_S = 2
#: What is raised if the broker goes away or does not accept a message.
AWAY = (AMQPError, MessageNacked, OperationalError, OSError)


def confirming(name: str) -> dict[str, Any]:
    """Return the options of such a kombu connection. RabbitMQ lists it under `name`."""
    return {
        "heartbeat": 0,  # nothing would send it between two calls
        "connect_timeout": TIMEOUT_S,
        "transport_options": {
            "confirm_publish": True,
            "read_timeout": TIMEOUT_S,
            "write_timeout": TIMEOUT_S,
            "client_properties": {"connection_name": name},
        },
    }


def open_channel(connection: Connection) -> StdChannel:
    """Connect, and return the first channel. Raises one of AWAY after one attempt."""
    connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
    return connection.channel()


def drop(connection: Connection) -> None:
    """Close without a handshake, which could wait for a broker in doubt. RabbitMQ requeues unacknowledged messages."""
    connection.collect(socket_timeout=0.1)
