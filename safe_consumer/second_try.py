"""Tries messages that reached the delivery limit once more, one at a time.

When a worker dies, the delivery count of all its unacknowledged messages goes up. So a message that kills workers takes
innocent messages to the limit with it. The broker moves all of them to `history.alone`. A process of the pool takes one
message at a time from there, over a connection of its own. If the worker dies meanwhile, that does not count against
this message. If the message kills the process, that counts against no other message. Innocent messages are written. A
message that kills its process moves on to `views.dead` and stays there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any
from weakref import ref

import structlog
from celery import bootsteps, current_app, states
from celery.worker.consumer.tasks import Tasks
from kombu import Connection, Queue
from kombu.message import Message
from kombu.transport.base import StdChannel
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from safe_consumer import options, shutdown
from safe_consumer.dead_letter_reasons import (
    ALONE_SINCE,
    DETAIL,
    KIND,
    WHEN,
    Reason,
    arguments,
    count_in,
    fault,
    how_many,
    one_line,
)
from safe_consumer.republish import copy
from service import metrics
from service.confirming_connection import AWAY, confirming, drop, open_channel
from view_events import topology

log = structlog.get_logger(__name__)

#: Seconds between two checks of `history.alone`. A check is one round trip of a millisecond over an open connection.
CHECK_EVERY_S = 2
#: Seconds for which one check may go on taking messages. Other messages need the process, too.
CHECK_S = 5
#: How many tries may end without a result. More than one, because the machine may lose its power during the first.
TRIES = 3


class SecondTry(bootsteps.StartStopStep):  # type: ignore[misc]
    """Celery's step that makes a process of the pool check `history.alone` every few seconds. RabbitMQ only."""

    requires = (Tasks,)

    def __init__(self, _consumer: Any, **_: Any) -> None:
        self._timer: Any = None
        self._check: Any = None
        #: The check that waits for a free process. It is a weak reference: only the semaphore keeps the check. If the
        #: semaphore is cleared, the next check can be requested.
        self._requested: Any = lambda: None

    def start(self, consumer: Any) -> None:
        self._check = None  # a check that ran when the connection was lost may never report its end
        if topology.is_amqp(consumer.app.conf.broker_url) and consumer.hub:
            semaphore = consumer.controller.semaphore if consumer.pool.uses_semaphore else None
            self._timer = consumer.timer.call_repeatedly(CHECK_EVERY_S, self.request_check, (consumer.pool, semaphore))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            consumer.timer.cancel(self._timer)
            self._timer = None

    def request_check(self, pool: Any, semaphore: Any) -> None:
        """Request a check, unless the last one still waits for a free process or still runs.

        A check takes a slot of the pool's semaphore, as a task does. The pool releases one slot after everything it
        runs.
        """
        if self._requested() is not None or (self._check is not None and not self._check.ready()):
            return
        start = partial(self._start, pool)
        if semaphore is None:
            start()
        else:
            self._requested = ref(start)
            semaphore.acquire(start)

    def _start(self, pool: Any) -> None:
        self._check = pool.apply_async(try_waiting)


class Link:
    """A process's own connection to RabbitMQ. It stays open from check to check."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._channel: StdChannel | None = None

    def channel(self) -> StdChannel:
        """Return the channel; connect first if necessary. Raises one of confirming_connection.AWAY."""
        if self._channel is None:
            self._connection = current_app.connection_for_write(**confirming("history.alone"))
            self._channel = open_channel(self._connection)
        return self._channel

    def discard(self) -> None:
        """Close the connection without a handshake. RabbitMQ requeues its unacknowledged message."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            drop(connection)


LINK = Link()


def try_waiting() -> None:
    """Try the messages in `history.alone` one after another, until the queue is empty.

    Runs in a process of the pool.
    """
    ours = options.of(current_app)
    deadline = monotonic() + CHECK_S
    try:
        channel = LINK.channel()
        while (
            monotonic() < deadline
            and not shutdown.asked()
            and ours.second_try_queue(channel).queue_declare(passive=True).message_count
            and database_answers(ours.engine())
        ):
            raw = channel.basic_get(ours.second_try_queue.name)
            if raw is None or not try_one(channel, raw, channel.message_to_python(raw), ours.second_try_queue):
                break
    except AWAY as error:
        log.debug("history.alone cannot be read", reason=one_line(error))
        LINK.discard()
    except BaseException:
        LINK.discard()  # RabbitMQ requeues its unacknowledged message
        raise


def database_answers(engine: Engine) -> bool:
    """Return whether PostgreSQL answers.

    While it does not, no message is taken: the message could only wait, and a crash of this process would count as a
    try.
    """
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))  # a pooled connection may be dead
            return True
    except DBAPIError:
        return False


def try_one(channel: StdChannel, raw: Any, message: Message, queue: Queue) -> bool:
    """Reset the delivery count of a message of `queue`, or try it, or give it up.

    Returns False if the check should end now. The message is acknowledged last. After a crash it is still in the queue,
    perhaps together with its copy.
    """
    headers = message.headers
    tries = count_in(headers, "x-delivery-count")
    if ALONE_SINCE not in headers:
        # Publish it anew: its delivery count then begins at 0 with every version of RabbitMQ.
        copy(channel, raw, queue.name, {ALONE_SINCE: _now()})
    elif tries >= TRIES:
        give_up(channel, raw, Reason("delivery-limit", f"its worker died, also when it was tried alone: {tries} times"))
    elif wrong := fault(message):
        give_up(channel, raw, wrong)
    else:
        task_id = one_line(headers["id"])
        log.warning("trying once more what reached the delivery limit", task_id=task_id, tries=tries)
        args, kwargs = arguments(message)
        result = current_app.tasks[headers["task"]].apply(args, kwargs, task_id=task_id)
        if result.state == states.FAILURE:
            give_up(channel, raw, Reason("failed", one_line(repr(result.result))))
        elif result.state != states.SUCCESS:
            # The task asks for a requeue: the worker stops, or no broker accepts the dead letters. Publish the message
            # anew, because requeueing it would count as a try, and no process has died.
            copy(channel, raw, queue.name, {ALONE_SINCE: headers[ALONE_SINCE]})
            message.ack()
            return False
    message.ack()
    return True


def give_up(channel: StdChannel, raw: Any, reason: Reason) -> None:
    """Dead-letter a message: put a copy into `views.dead`, with the reason."""
    copy(channel, raw, topology.DEAD_LETTERS.name, {KIND: reason.kind, DETAIL: reason.detail, WHEN: _now()})
    metrics.worker().refused.labels(reason.kind).inc(how_many(raw.body))
    task_id = (raw.properties.get("application_headers") or {}).get("id")
    log.error("given up, dead-lettered", kind=reason.kind, reason=reason.detail, task_id=task_id)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
