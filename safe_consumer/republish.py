"""Moves messages from one queue to another without losing any: copy, wait for the confirm, then acknowledge."""

from __future__ import annotations

from typing import Any

from kombu.transport.base import StdChannel

from safe_consumer.dead_letter_reasons import without_past
from service.confirming_connection import TIMEOUT_S
from view_events import topology

PERSISTENT = 2
#: Properties that a copy does not get. `user_id`: a stranger may have published the message, and the broker refuses a
#: user id that is not the connection's. `expiration`: the copy would disappear from the dead letters.
NOT_COPIED = ("user_id", "expiration")


def copy(
    channel: StdChannel,
    raw: Any,
    queue: str,
    notes: dict[str, Any] | None = None,
    *,
    exchange: str = topology.DEAD.name,
) -> None:
    """Copy a message, as py-amqp received it, into one queue, without the broker's notes on its past.

    The default is the exchange `views.dead`: the queues `views.dead` and `history.alone` are bound to it under their
    names. The default exchange of AMQP reaches every queue, so a worker has no permission to write to it.

    Returns after the confirm; then the caller acknowledges the message. After a crash between the two, the message is
    in both queues. That is harmless, because its events have ids. Raises one of AWAY.
    """
    properties = {name: value for name, value in raw.properties.items() if name not in NOT_COPIED}
    properties["application_headers"] = without_past(properties.get("application_headers") or {}) | (notes or {})
    properties["delivery_mode"] = PERSISTENT
    channel.basic_publish(
        type(raw)(raw.body, **properties),
        exchange=exchange,
        routing_key=queue,
        mandatory=True,  # if the queue is missing, the broker returns the message and this raises
        confirm_timeout=TIMEOUT_S,
    )
