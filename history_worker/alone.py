"""Tries messages that reached the delivery limit once more, each with nothing beside it.

When a worker dies, the delivery count of everything that it held goes up: one message that kills workers takes
innocent ones to the limit with it. The broker moves all of them to `history.alone`. From there a process of the pool
takes one at a time over a connection of its own, so that what happens to the worker does not count against it, and what
it does to this process counts against nothing else. The innocent are written; a killer moves on to `views.dead` and
stays there.
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
from kombu import Connection
from kombu.message import Message
from kombu.transport.base import StdChannel
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from history_worker import stopping
from history_worker.moving import AWAY, confirming, copy, drop, open_channel
from history_worker.reasons import ALONE_SINCE, DETAIL, KIND, WHEN, Reason, arguments, fault, how_many, one_line
from view_events import metrics, topology

log = structlog.get_logger(__name__)

#: How often a worker looks whether something waits there: a round trip of a millisecond over a connection that is open.
LOOK_EVERY_S = 2
#: How long one look may go on taking messages; the process is wanted for others, too.
LOOK_S = 5
#: Tries that may end without a result. More than one, since a machine may lose its power in the middle of the first.
TRIES = 3


class Alone(bootsteps.StartStopStep):  # type: ignore[misc]
    """Has a process of the pool look, every few seconds while the worker is connected to RabbitMQ."""

    requires = (Tasks,)

    def __init__(self, _consumer: Any, **_: Any) -> None:
        self._timer: Any = None
        self._look: Any = None
        #: What waits for a free process. Only the semaphore holds it: whoever clears that makes room for the next.
        self._asked: Any = lambda: None

    def start(self, consumer: Any) -> None:
        self._look = None  # what was under way when the connection was lost may never be answered
        if topology.is_amqp(consumer.app.conf.broker_url) and consumer.hub:
            semaphore = consumer.controller.semaphore if consumer.pool.uses_semaphore else None
            self._timer = consumer.timer.call_repeatedly(LOOK_EVERY_S, self.look, (consumer.pool, semaphore))

    def stop(self, consumer: Any) -> None:
        if self._timer is not None:
            consumer.timer.cancel(self._timer)
            self._timer = None

    def look(self, pool: Any, semaphore: Any) -> None:
        """Ask for a look, unless the last one still waits for a free process or holds its message.

        It takes a slot of the pool's semaphore, as a task does: the pool gives one back at the end of whatever it ran.
        """
        if self._asked() is not None or (self._look is not None and not self._look.ready()):
            return
        start = partial(self._start, pool)
        if semaphore is None:
            start()
        else:
            self._asked = ref(start)
            semaphore.acquire(start)

    def _start(self, pool: Any) -> None:
        self._look = pool.apply_async(look)


class Link:
    """A process's own connection, kept from look to look."""

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._channel: StdChannel | None = None

    def channel(self) -> StdChannel:
        """Raises one of moving.AWAY."""
        if self._channel is None:
            self._connection = current_app.connection_for_write(**confirming("history.alone"))
            self._channel = open_channel(self._connection)
        return self._channel

    def discard(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            drop(connection)


LINK = Link()


def look() -> None:
    """In a process of the pool: try what waits in `history.alone`, one message after another, until it is empty."""
    from history_worker.tasks import engine

    deadline = monotonic() + LOOK_S
    try:
        channel = LINK.channel()
        while (
            monotonic() < deadline and not stopping.asked() and _something_waits(channel) and database_answers(engine())
        ):
            raw = channel.basic_get(topology.ALONE.name)
            if raw is None or not take(channel, raw, channel.message_to_python(raw)):
                break
    except AWAY as error:
        log.debug("history.alone cannot be looked at", reason=one_line(error))
        LINK.discard()
    except BaseException:
        LINK.discard()  # what it held goes back
        raise


def _something_waits(channel: StdChannel) -> bool:
    return bool(topology.ALONE(channel).queue_declare(passive=True).message_count)


def database_answers(engine: Engine) -> bool:
    """A message is not taken while it could only be held: that would count, should this process die meanwhile."""
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))  # a connection from the pool may be one that was lost
            return True
    except DBAPIError:
        return False


def take(channel: StdChannel, raw: Any, message: Message) -> bool:
    """Do the next thing with a message. False: nothing more just now.

    It is acknowledged last. A crash on the way leaves it where it is, maybe besides its copy.
    """
    headers = message.headers
    tries = int(headers.get("x-delivery-count") or 0)
    if ALONE_SINCE not in headers:
        # Published anew, its delivery count begins at 0 with every version of RabbitMQ.
        copy(channel, raw, topology.ALONE.name, {ALONE_SINCE: _now()})
    elif tries >= TRIES:
        give_up(channel, raw, Reason("delivery-limit", f"its worker died, also when it was tried alone: {tries} times"))
    elif wrong := fault(message):
        give_up(channel, raw, wrong)
    else:
        log.warning("trying alone what reached the delivery limit", task_id=headers["id"], tries=tries)
        args, kwargs = arguments(message)
        result = current_app.tasks[headers["task"]].apply(args, kwargs, task_id=headers["id"])
        if result.state == states.FAILURE:
            give_up(channel, raw, Reason("failed", one_line(repr(result.result))))
        elif result.state != states.SUCCESS:
            # The task asks for it to go back: the worker stops, or nobody takes what it refused. Published anew, for
            # to give it back would count as a try, and nothing has died.
            copy(channel, raw, topology.ALONE.name, {ALONE_SINCE: headers[ALONE_SINCE]})
            message.ack()
            return False
    message.ack()
    return True


def give_up(channel: StdChannel, raw: Any, reason: Reason) -> None:
    """Put a copy with the reason into `views.dead`."""
    copy(channel, raw, topology.DEAD_LETTERS.name, {KIND: reason.kind, DETAIL: reason.detail, WHEN: _now()})
    metrics.worker().refused.labels(reason.kind).inc(how_many(raw.body))
    task_id = (raw.properties.get("application_headers") or {}).get("id")
    log.error("given up, dead-lettered", kind=reason.kind, reason=reason.detail, task_id=task_id)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
