"""What can go wrong on the way out, and what the caller does about it."""

from __future__ import annotations


class NotAccepted(Exception):
    """A view is neither with the broker nor in the outbox in time; it may be sent again with the same id.

    Raised by `Publisher.publish`; answered with 503, Retry-After and the ids.
    """


class InDoubt(Exception):
    """A message may or may not have reached its queue: no confirm, a nack, a return, a lost connection.

    Raised by `BrokerLink.send`; the publisher throws the connection away and its events go to the outbox.
    """


class Returned(InDoubt):
    """The broker gave a message back, since no queue takes it: the binding of `history` is gone.

    Raised by `BrokerLink.send`.
    """


class BrokerAway(Exception):
    """No connection to the broker, or the queue `history` is not there yet.

    Raised by `BrokerLink.connect`; the publisher tries again after a pause.
    """
