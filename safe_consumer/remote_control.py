"""Remote control: a worker answers questions about itself, and executes no commands.

Flower and `celery inspect` ask through the exchange `celery.pidbox`. The same permission lets a client send Celery's
commands that stop workers or make them drop messages. RabbitMQ cannot tell questions and commands apart, so the worker
does. A stranger may have written every field of such a message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog
from celery.worker import control
from celery.worker.consumer.control import Control
from celery.worker.pidbox import Pidbox

log = structlog.get_logger(__name__)

#: The questions that a worker answers. None of them changes anything, except `enable_events`: it makes the worker send
#: task events, which Flower needs. Some of Celery's "inspect" commands are missing on purpose. `hello` merges a list of
#: revoked tasks, and the worker would drop those messages. `objgraph` and the memory dumps write files or take long.
ANSWERS: dict[str, Callable[[Any], Any]] = {
    "active": control.active,
    "active_queues": control.active_queues,
    "clock": control.clock,
    "conf": control.conf,
    "enable_events": control.enable_events,
    "ping": control.ping,
    "registered": control.registered,
    "reserved": control.reserved,
    "revoked": control.revoked,
    "scheduled": control.scheduled,
    "stats": control.stats,
}
#: The longest routing key in AMQP, in bytes.
LONGEST_NAME = 255


class QuestionBox(Pidbox):  # type: ignore[misc]
    """The worker's mailbox for questions."""

    def start(self, c: Any) -> None:
        super().start(c)
        # Celery's own handler acknowledges, and ours for tasks rejects. This consumer has no acks, so both would close
        # the channel.
        self.consumer.on_decode_error = _log_not_understood

    def on_message(self, body: Any, message: Any) -> None:
        """Answer a question. Whatever the message contains, the worker goes on."""
        try:
            self._answer(body)
        except Exception as error:  # noqa: BLE001 (a stranger chose what is in it)
            _log_not_understood(message, error)

    def _answer(self, body: Any) -> None:
        # Celery would set its logical clock by the message's header; this does not. Events and answers carry the clock,
        # and AMQP has no room for a very large number. So one such header would end all events and answers of this
        # worker.
        if not isinstance(body, dict) or not is_for(self.hostname, body):
            return
        answer = answer_to(body.get("method"), self.node.state)
        address, ticket = body.get("reply_to"), body.get("ticket")
        mailbox = self.node.mailbox
        # Answer only to the exchange for answers: otherwise a client could publish anywhere with the worker's rights.
        if isinstance(address, dict) and address.get("exchange") == mailbox.reply_exchange.name:
            routing_key = address.get("routing_key")
            if is_name(routing_key) and is_name(ticket):
                self.node.reply({self.hostname: answer}, mailbox.reply_exchange.name, routing_key, ticket)


class RemoteControl(Control):  # type: ignore[misc]
    """Celery's step, with our mailbox."""

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        box = QuestionBox(consumer)
        self.start, self.stop, self.shutdown = box.start, box.stop, box.shutdown


def is_for(hostname: str, body: dict[str, Any]) -> bool:
    """Return whether a question is for this worker: it names this worker, or none.

    Patterns are ignored: they can take long.
    """
    destination = body.get("destination")
    if body.get("pattern") or not isinstance(destination, list | None):
        return False
    return not destination or hostname in destination


def answer_to(method: Any, state: Any) -> Any:
    """Return the answer to a question. Ignores the question's arguments."""
    answer = ANSWERS.get(method) if isinstance(method, str) else None
    if answer is None:
        return {"error": f"a history worker answers {', '.join(ANSWERS)} and nothing else"}
    return answer(state)


def is_name(value: object) -> bool:
    """Return whether AMQP can carry this value as a name."""
    return isinstance(value, str) and 0 < len(value.encode(errors="replace")) <= LONGEST_NAME


def _log_not_understood(_message: Any, error: BaseException) -> None:
    log.warning("a question of remote control was not understood", reason=type(error).__name__)
