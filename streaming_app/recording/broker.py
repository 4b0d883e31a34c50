"""The connection to the broker: one channel, one message in flight, and a confirm for each message."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from amqp.exceptions import AccessRefused, PreconditionFailed
from celery import Celery
from kombu import Connection, Producer, serialization
from kombu.utils.json import loads

from service import connection_advice
from service.confirming_connection import TIMEOUT_S, confirming, drop, open_channel
from streaming_app.recording.errors import BrokerAway, InDoubt, Refused, Returned
from view_events import event, topology
from view_events.event import ViewEvent

#: AMQP's reply code for a `mandatory` message that no queue takes.
NO_ROUTE = 312
#: RabbitMQ's error contains this if a user may write to the exchange, but not with this routing key.
TOPIC_REFUSED = "access to topic"

#: Produces ordinary JSON, directly from the events. kombu's own JSON serializer would first make a dictionary of each
#: event.
SERIALIZER = "view-events"
serialization.register(
    SERIALIZER, msgspec.json.encode, loads, content_type="application/json", content_encoding="utf-8"
)


class BrokerLink:
    """Sends batches of events to the broker, each batch as one Celery task.

    After any doubt (`InDoubt`) the connection is closed (service/confirming_connection.py says why). For the same
    reason only one message is in flight.

    Use it from one thread only.
    """

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._amqp = topology.is_amqp(celery.conf.broker_url)
        # In learner mode a publish returns after PostgreSQL has committed the message. That commit is the confirm.
        self._options = confirming("streaming-app")
        if not self._amqp:
            self._options["transport_options"] = {}
        self._connection: Connection | None = None
        self._producer: Producer | None = None

    @property
    def connected(self) -> bool:
        return self._producer is not None

    def connect(self) -> None:
        """Open the connection and check that the queue `history` exists. Raises BrokerAway."""
        # Without heartbeats `check` notices a dead broker.
        connection = self._celery.connection_for_write(**self._options)
        try:
            channel = open_channel(connection)  # one attempt: the publisher has its own pause
            topology.check(channel)
            _warm(self._celery)
            self._producer = Producer(channel, auto_declare=False)
            self._connection = connection
        except Exception as error:  # after any error there is no connection
            drop(connection)
            because = connection_advice.why(error, tls=bool(self._celery.conf.broker_use_ssl))
            raise BrokerAway(f"{type(error).__name__}: {because}") from error

    def send(self, events: Sequence[ViewEvent]) -> str:
        """Publish one task with these events and wait for the confirm. Returns the task's id.

        Raises InDoubt, Returned or Refused. The connection is then closed.
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
                declare=[],  # the publisher may write to `views`, but declare nothing
                mandatory=True,  # otherwise the broker confirms an unroutable message and drops it
                confirm_timeout=TIMEOUT_S,
                retry=False,
                ignore_result=True,
            )
        except Exception as error:  # after any error, the message is in doubt
            self.discard()
            raise doubt_of(error) from error
        return str(sent.id)

    def check(self) -> None:
        """Notice, while there is nothing to send, that the broker closed the connection. Raises InDoubt."""
        if self._connection is None or not self._amqp:
            return
        try:
            self._connection.drain_events(timeout=0.001)
        except TimeoutError:
            return
        except Exception as error:  # after any error, the connection is in doubt
            self.discard()
            raise InDoubt(f"{type(error).__name__}: {error}") from error

    def discard(self) -> None:
        """Close the socket without AMQP's closing handshake, because that would wait for a broker that
        may not answer.
        """
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            drop(connection)


def doubt_of(error: Exception) -> InDoubt:
    """Convert an error that came instead of a confirm to InDoubt, Returned or Refused."""
    text = f"{type(error).__name__}: {error}"
    if getattr(error, "reply_code", None) == NO_ROUTE:
        return Returned(text)
    # If the user may not write to the exchange at all, no message would pass. Then the broker is configured wrongly,
    # and the message is not the problem.
    is_its_key = isinstance(error, AccessRefused) and TOPIC_REFUSED in str(error)
    return Refused(text) if is_its_key or isinstance(error, PreconditionFailed) else InDoubt(text)


def _warm(celery: Celery) -> None:
    """Make Celery build its objects now. Otherwise the first request would wait for them."""
    _ = celery.tasks, celery.backend, celery.amqp.router, celery.amqp.send_task_message
