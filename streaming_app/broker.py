"""The link to the broker: one connection, one channel, one message in flight, each confirmed."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from celery import Celery
from kombu import Connection, Producer, serialization
from kombu.utils.json import loads

from streaming_app.errors import BrokerAway, InDoubt, Returned
from view_events import event, topology
from view_events.event import ViewEvent

#: How long a connect, a declaration or a write may take. A broker that is slower than this is treated as away.
CONNECT_TIMEOUT_S = 2
#: How long to wait for a confirm. Requests have their own, shorter deadline; this one frees the publisher thread.
CONFIRM_TIMEOUT_S = 2
#: AMQP's code of a message that was `mandatory` and that no queue takes.
NO_ROUTE = 312
CONFIRMED = {
    "confirm_publish": True,
    "read_timeout": CONNECT_TIMEOUT_S,
    "write_timeout": CONNECT_TIMEOUT_S,
    "client_properties": {"connection_name": "streaming-app"},
}

#: JSON like any other, written straight from the events. kombu's own way makes a dictionary of each first.
SERIALIZER = "view-events"
serialization.register(
    SERIALIZER, msgspec.json.encode, loads, content_type="application/json", content_encoding="utf-8"
)


class BrokerLink:
    """Sends batches of events as Celery tasks.

    After any doubt (`InDoubt`) the connection is thrown away: py-amqp takes any ack for its own, so that on a
    connection used again the late ack of a lost message would confirm the next one. One message in flight for the
    same reason.
    Used by one thread only.
    """

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._amqp = topology.is_amqp(celery.conf.broker_url)
        # In learner mode a publish returns when PostgreSQL has committed the message: that is its confirm.
        self._options = {**celery.conf.broker_transport_options, **(CONFIRMED if self._amqp else {})}
        self._connection: Connection | None = None
        self._producer: Producer | None = None

    @property
    def connected(self) -> bool:
        return self._producer is not None

    def connect(self) -> None:
        """Open the connection and see that `history` is there. Raises BrokerAway."""
        connection = self._celery.connection_for_write(
            heartbeat=0,  # nobody would send it while the thread waits for work; `check` notices a dead broker instead
            connect_timeout=CONNECT_TIMEOUT_S,
            transport_options=self._options,
        )
        try:
            # kombu would sleep two seconds between two attempts; the publisher has its own pause.
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            channel = connection.channel()
            topology.check(channel)
            _warm(self._celery)
            self._producer = Producer(channel, auto_declare=False)
            self._connection = connection
        except Exception as error:  # whatever it is, there is no link
            _drop(connection)
            raise BrokerAway(f"{type(error).__name__}: {error}") from error

    def send(self, events: Sequence[ViewEvent]) -> str:
        """Publish one task with these events and wait for the confirm; the task's id.

        Raises InDoubt, and is then disconnected.
        """
        if self._producer is None or self._connection is None:
            raise InDoubt("not connected")
        try:
            sent = self._celery.send_task(
                event.TASK,
                args=(events,),
                serializer=SERIALIZER,
                kwargs={"version": event.VERSION},
                argsrepr=event.describe(events),
                kwargsrepr="{}",
                producer=self._producer,
                exchange=topology.VIEWS.name,
                routing_key=topology.routing_key(e.kind for e in events),
                declare=[],  # the publisher may write to `views` and declare nothing
                mandatory=True,  # an unroutable message comes back (and raises) instead of being confirmed and dropped
                confirm_timeout=CONFIRM_TIMEOUT_S,
                retry=False,
                ignore_result=True,
            )
        except Exception as error:  # whatever it is, it is a doubt
            self.discard()
            kind = Returned if getattr(error, "reply_code", None) == NO_ROUTE else InDoubt
            raise kind(f"{type(error).__name__}: {error}") from error
        return str(sent.id)

    def check(self) -> None:
        """Notice, while nothing is to be sent, that the broker closed the connection. Raises InDoubt."""
        if self._connection is None or not self._amqp:
            return
        try:
            self._connection.drain_events(timeout=0.001)
        except TimeoutError:
            return
        except Exception as error:  # whatever it is, it is a doubt
            self.discard()
            raise InDoubt(f"{type(error).__name__}: {error}") from error

    def discard(self) -> None:
        """Close the socket without a word: a goodbye would wait for the answer of a broker that is in doubt."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            _drop(connection)


def _warm(celery: Celery) -> None:
    """Let Celery build now what it would build for its first task, while a request waits."""
    _ = celery.tasks, celery.backend, celery.amqp.router, celery.amqp.send_task_message


def _drop(connection: Connection) -> None:
    connection.collect(socket_timeout=0.1)
