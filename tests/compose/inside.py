"""Tries what a user of the broker may do. Runs in a container, from standard input: `python - URL [NOT THIS]...`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from kombu import Connection

#: What somebody could try, by name: a function of a fresh channel.
TRIES: dict[str, Callable[[Any], Any]] = {
    "publish to views": lambda c: publish(c, "views", "view.started"),
    "publish to views under another key": lambda c: publish(c, "views", "other"),
    "publish to views.dead": lambda c: publish(c, "views.dead", "nowhere"),
    "publish to a queue by its name": lambda c: publish(c, "", "nowhere"),
    "send workers a command": lambda c: publish(c, "celery.pidbox", ""),
    "check history": lambda c: c.queue_declare("history", passive=True),
    "read history": lambda c: c.basic_get("history"),
    "read views.dead": lambda c: c.basic_get("views.dead"),
    "purge history": lambda c: c.queue_purge("history"),
    "delete history": lambda c: c.queue_delete("history"),
    "delete views": lambda c: c.exchange_delete("views"),
    "unbind history": lambda c: c.queue_unbind("history", "views", "not-there"),
    "bind history to another exchange": lambda c: c.queue_bind("history", "amq.topic", "x"),
    "declare a queue": lambda c: c.queue_declare("mine", exclusive=True),
    "declare an exchange": lambda c: c.exchange_declare("mine", "fanout", auto_delete=True),
    "listen to views": lambda c: listen(c, "views"),
    "listen to events of workers": lambda c: listen(c, "celeryev"),
}


def publish(channel: Any, exchange: str, routing_key: str) -> None:
    """Where the work queue would get it, it has a life of nothing, and nobody is there to take it."""
    message = channel.prepare_message(b"[]", properties={"expiration": "0"})
    channel.basic_publish(message, exchange=exchange, routing_key=routing_key)


def listen(channel: Any, exchange: str) -> None:
    """Under a name of the kind that Celery's listeners have."""
    queue = "celeryev.00000000-0000-0000-0000-000000000000"
    channel.queue_declare(queue, exclusive=True, auto_delete=True)
    channel.queue_bind(queue, exchange, "#")


def outcome(url: str, attempt: Callable[[Any], Any]) -> str:
    """`ok`, or the code and the beginning of what the broker says."""
    with Connection(url, transport_options={"confirm_publish": True}) as connection:
        try:
            attempt(connection.channel())
        except connection.channel_errors as error:
            return str(getattr(error, "reply_code", error))
    return "ok"


_, address, *left_out = sys.argv
tried = {name: outcome(address, attempt) for name, attempt in TRIES.items() if name not in left_out}
json.dump(tried, sys.stdout)
