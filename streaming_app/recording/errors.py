"""Errors of publishing, and what the caller does about each."""

from __future__ import annotations


class NotAccepted(Exception):
    """A view was neither confirmed by the broker nor committed to the outbox in time. Send it again with the same id.

    Raised by `Publisher.publish`. Answered with 503, Retry-After and the ids.
    """


class InDoubt(Exception):
    """A message may or may not have reached its queue: no confirm, a nack, a return, or a lost connection.

    Raised by `BrokerLink.send`. The publisher closes the connection and stores the events in the outbox.
    """


class Returned(InDoubt):
    """The broker returned a message because no queue takes it: the binding of `history` is missing.

    Raised by `BrokerLink.send`.
    """


class Refused(InDoubt):
    """The broker refuses this message: its routing key is not permitted, or it is too large.

    Raised by `BrokerLink.send`. Other messages may pass, so the publisher does not open the circuit breaker.
    """


class BrokerAway(Exception):
    """There is no connection to the broker, or the queue `history` does not exist yet.

    Raised by `BrokerLink.connect`. The publisher tries again after a pause.
    """
