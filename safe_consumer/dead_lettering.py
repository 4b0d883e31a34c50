"""Dead-letters messages that no worker can run.

Usually the worker rejects them, and RabbitMQ moves them to the dead letters. In two cases the worker moves them itself
(copy, confirm, acknowledge): messages with headers that would end RabbitMQ's dead-lettering; and all messages in
learner mode, where pgmq deletes a rejected message.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import structlog
from celery import bootsteps
from celery.worker.consumer.tasks import Tasks
from kombu import Connection

from safe_consumer.dead_letter_reasons import DETAIL, KIND, WHEN, Reason, is_forged, one_line, without_past
from safe_consumer.republish import PERSISTENT
from service.confirming_connection import AWAY, TIMEOUT_S, confirming, drop, open_channel
from view_events import topology

log = structlog.get_logger(__name__)

#: Seconds until the next attempt if the broker does not accept the dead letters.
RETRY_S = 5
#: Seconds for one attempt. The event loop has other work.
ATTEMPT_S = 0.5

_of_this_worker: DeadLettering | None = None


class DeadLettering(bootsteps.StartStopStep):  # type: ignore[misc]
    """Celery's step that dead-letters messages. It keeps a waiting message unacknowledged, so that none is lost."""

    requires = (Tasks,)

    def __init__(self, consumer: Any, **_: Any) -> None:
        self._consumer = consumer
        self._waiting: deque[tuple[Any, Reason]] = deque()
        self._connection: Connection | None = None
        self._channel: Any = None
        self._timer: Any = None
        global _of_this_worker  # noqa: PLW0603 (a worker has one)
        _of_this_worker = self

    def start(self, consumer: Any) -> None:
        self._waiting.clear()  # RabbitMQ delivers what came over an earlier connection again
        self._timer = consumer.timer.call_repeatedly(RETRY_S, self.move_waiting)

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            consumer.timer.cancel(self._timer)
            self._timer = None
        self._waiting.clear()
        self._discard()

    def dead_letter(self, message: Any, reason: Reason) -> None:
        """Dead-letter a message for this reason."""
        amqp = topology.is_amqp(self._consumer.app.conf.broker_url)
        if amqp and not is_forged(message.headers):
            message.reject_log_error(log, self._consumer.connection_errors)
            return
        self._waiting.append((message, reason))
        if len(self._waiting) == 1:
            self.move_waiting()

    def move_waiting(self) -> None:
        """Move the waiting messages. Each is acknowledged last.

        After a crash the message is still in its queue, perhaps together with its copy.
        """
        deadline = monotonic() + ATTEMPT_S
        try:
            while self._waiting and monotonic() < deadline:
                message, reason = self._waiting[0]
                self._copy_somehow(message, reason)
                message.ack_log_error(log, self._consumer.connection_errors)
                self._waiting.popleft()
        except self._away() as error:
            log.warning(
                "the dead-letter queue cannot be reached; the message stays unacknowledged", reason=one_line(error)
            )
            self._discard()

    def _away(self) -> tuple[type[BaseException], ...]:
        return (*AWAY, *self._consumer.connection_errors, *self._consumer.channel_errors)

    def _copy_somehow(self, message: Any, reason: Reason) -> None:
        try:
            self._copy(message, reason, without_past(message.headers))
        except self._away():
            raise
        except Exception as error:  # noqa: BLE001 (a stranger chose the headers)
            log.warning("a dead letter goes without its headers", reason=one_line(error))
            self._discard()
            self._copy(message, reason, {})

    def _copy(self, message: Any, reason: Reason, headers: dict[str, Any]) -> None:
        amqp = topology.is_amqp(self._consumer.app.conf.broker_url)
        if self._channel is None:
            self._connection = self._consumer.app.connection_for_write(**(confirming("dead-letters") if amqp else {}))
            self._channel = open_channel(self._connection)
            if not amqp:  # each process of pgmq has its own bindings, and drops a message without one
                topology.DEAD_LETTERS(self._channel).declare()
        died_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._channel.basic_publish(
            self._channel.prepare_message(
                message.body,
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                headers=headers | {KIND: reason.kind, DETAIL: reason.detail, WHEN: died_at},
                properties={"delivery_mode": PERSISTENT},
            ),
            exchange=topology.DEAD.name,
            routing_key=topology.DEAD_LETTERS.routing_key,
            **({"mandatory": True, "confirm_timeout": TIMEOUT_S} if amqp else {}),
        )

    def _discard(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            drop(connection)


def dead_letter(message: Any, reason: Reason) -> None:
    """Dead-letter a message of this worker for this reason."""
    if _of_this_worker is None:
        raise RuntimeError("the step DeadLettering must be created before the worker gets messages")
    _of_this_worker.dead_letter(message, reason)
