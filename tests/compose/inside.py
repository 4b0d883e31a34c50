"""Tries what a user of the broker may do. Runs in a container, from standard input: `python - URL` prints JSON."""

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
    "publish to a queue by its name": lambda c: publish(c, "", "history"),
    "send workers a command": lambda c: publish(c, "celery.pidbox", ""),
    "check history": lambda c: c.queue_declare("history", passive=True),
    "read history": lambda c: c.basic_get("history"),
    "read views.dead": lambda c: c.basic_get("views.dead"),
    "purge history": lambda c: c.queue_purge("history"),
    "delete history": lambda c: c.queue_delete("history", if_unused=True),
    "delete views": lambda c: c.exchange_delete("views", if_unused=True),
    "unbind history": lambda c: c.queue_unbind("history", "views", "not-there"),
    "bind history to another exchange": lambda c: c.queue_bind("history", "amq.topic", "x"),
    "declare a queue": lambda c: c.queue_declare("mine", exclusive=True),
    "declare an exchange": lambda c: c.exchange_declare("mine", "fanout", auto_delete=True),
    "listen to views": lambda c: listen(c, "views"),
    "listen to events of workers": lambda c: listen(c, "celeryev"),
}


def publish(channel: Any, exchange: str, routing_key: str) -> None:
    """To nobody in the end: what would be queued is not mandatory and has a life of nothing."""
    message = channel.prepare_message("[]", properties={"expiration": "0"})
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


json.dump({name: outcome(sys.argv[1], attempt) for name, attempt in TRIES.items()}, sys.stdout)
