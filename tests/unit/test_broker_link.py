"""What an error of the broker means for the message that it came for."""

from __future__ import annotations

import pytest
from amqp.exceptions import AccessRefused, ConnectionForced, MessageNacked, NotFound, PreconditionFailed

from streaming_app.recording.broker import doubt_of
from streaming_app.recording.errors import InDoubt, Refused, Returned

PUBLISH = (60, 40)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            AccessRefused(
                "ACCESS_REFUSED - write access to topic 'view.finished' in exchange 'views' in vhost '/' refused for "
                "user 'streaming-app'",
                PUBLISH,
            ),
            Refused,
        ),
        (PreconditionFailed("PRECONDITION_FAILED - message size 900 is larger than configured max size 800"), Refused),
        # Here no message would pass: the fault is not the message's.
        (AccessRefused("ACCESS_REFUSED - write access to exchange 'views' in vhost '/' refused for user 'x'"), InDoubt),
        (NotFound("NOT_FOUND - no exchange 'views' in vhost '/'", PUBLISH), InDoubt),
        (ConnectionForced("CONNECTION_FORCED - broker forced connection closure"), InDoubt),
        (MessageNacked(), InDoubt),
        (TimeoutError(), InDoubt),
    ],
)
def test_only_what_is_about_the_message_itself_counts_as_a_refusal(error: Exception, kind: type[InDoubt]) -> None:
    assert type(doubt_of(error)) is kind


def test_a_message_that_no_queue_takes_is_a_returned_one() -> None:
    error = NotFound("NO_ROUTE", PUBLISH)
    error.reply_code = 312
    assert type(doubt_of(error)) is Returned
