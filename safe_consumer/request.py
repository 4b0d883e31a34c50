"""Celery's request of a message, changed: nothing revokes it, and a requeue does not count as a failed delivery."""

from __future__ import annotations

from typing import Any

import structlog
from amqp import spec
from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated, WorkerLostError
from celery.exceptions import Reject
from celery.worker import request, state

from safe_consumer.dead_letter_reasons import FAILED, fault, fault_of_events
from safe_consumer.dead_lettering import dead_letter

log = structlog.get_logger(__name__)


class Request(request.Request):  # type: ignore[misc]
    """What the worker knows about a message until it acknowledges it."""

    acknowledged: bool = False

    def revoked(self) -> bool:
        """Return False. Celery acknowledges a message that a command, another worker or a file (`--statedb`) revokes.

        The message would be lost.
        """
        return False

    def requeue(self) -> None:
        """Requeue the message. Since RabbitMQ 4.3 this does not count as a failed delivery."""
        if self.acknowledged:
            return
        try:
            requeue(self.message)
        except self.connection_errors as error:
            log.warning("cannot requeue a message: RabbitMQ does so itself", reason=str(error))
        self.acknowledged = True
        self.send_event("task-rejected", requeue=True)

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 (Celery's signature)
        """Requeue the message, which counts as a failed delivery; or dead-letter it."""
        if requeue or self.acknowledged:
            super().reject(requeue)
            return
        self.acknowledged = True
        dead_letter(self.message, fault(self.message) or fault_of_events(self.message) or FAILED)
        self.send_event("task-rejected", requeue=False)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Handle an error that a task raised or that its process died of."""
        error = error_of(exc_info)
        if isinstance(error, Reject) and error.requeue:
            state.task_ready(self)
            return self.requeue()
        if isinstance(error, Terminated):
            # Celery would acknowledge the message as revoked. A process that a signal ended has died like any other.
            exc_info.exception = WorkerLostError(str(error))
        return super().on_failure(exc_info, send_failed_event, return_ok)


def error_of(info: Any) -> BaseException:
    """Return what a process raised or died of. billiard wraps the error together with its traceback."""
    error: BaseException = info.exception
    return error.exc if isinstance(error, ExceptionWithTraceback) else error


def requeue(message: Any) -> None:
    """Requeue a message with `basic.nack`.

    RabbitMQ 4.3 counts `basic.reject` as a failed delivery, up to the delivery limit, but not `basic.nack`. Earlier
    versions count both. If a process dies, its message is rejected: that must count, because the message may be what
    kills the process.
    """
    channel = message.channel
    if hasattr(channel, "send_method"):  # py-amqp has no method for it
        if not message.acknowledged:
            channel.send_method(spec.Basic.Nack, "Lbb", (message.delivery_tag, False, True))
            message._state = "REQUEUED"  # noqa: SLF001 (as kombu's own `requeue` does)
    else:
        message.requeue()
