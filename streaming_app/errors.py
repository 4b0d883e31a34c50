"""What can go wrong on the way out, and what the caller does about it."""

from __future__ import annotations


class NotAccepted(Exception):
    """A view could not be handed to the broker in time; it may be sent again with the same id.

    Raised by `Publisher.publish`; answered with 503, Retry-After and the ids.
    """


class InDoubt(Exception):
    """A message may or may not have reached its queue: no confirm, a nack, a return, a lost connection.

    Raised by `BrokerLink.send`; the publisher throws the connection away and counts the message as not sent.
    """


class BrokerAway(Exception):
    """No connection to the broker, or the queue `history` is not there yet.

    Raised by `BrokerLink.connect`; the publisher tries again after a pause.
    """
