"""The errors of recording a view, and what the caller does about each."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil


class RecordingError(Exception):
    """The base class. Callers who may not record get another error, `AuthError` (streaming_app/access/auth.py)."""


# -- the request is not accepted -------------------------------------------------------------------------


class NotJson(RecordingError):
    """The body is invalid JSON. Raised by `request.decode`; answered with 400."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One error: which event of the request, which field, and why."""

    index: int | None
    field: str | None
    message: str


class Unprocessable(RecordingError):
    """Some fields are wrong. Raised by `request.decode` and `check`; answered with 422. Nothing is recorded.

    `errors`: the first errors, at most `request.MAX_ERRORS`. `more_events`: how many further events have errors.
    """

    def __init__(self, *errors: FieldError, more_events: int = 0) -> None:
        super().__init__(errors)
        self.errors = errors
        self.more_events = more_events

    def __str__(self) -> str:
        if not self.more_events:
            return "Nothing was recorded."
        return (
            f"Nothing was recorded. {len(self.errors)} errors are shown; {self.more_events:,} more events have errors."
        )


class TooMany(RecordingError):
    """A caller is over a limit. Raised by `Limits`; answered with 429: its text for people, `retry_after_s` for
    programs.
    """

    def __init__(self, detail: str, wait_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = max(1, ceil(wait_s))


class NotAccepted(RecordingError):
    """A view was neither confirmed by the broker nor committed to the outbox in time. Send it again with the same id.

    The future of `Publisher.submit` ends with it. Answered with 503, Retry-After and the ids.
    """


# -- the broker ------------------------------------------------------------------------------------------


class InDoubt(RecordingError):
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


class BrokerAway(RecordingError):
    """There is no connection to the broker, or the queue `history` does not exist yet.

    Raised by `BrokerLink.connect`. The publisher tries again after a pause.
    """


# -- the outbox ------------------------------------------------------------------------------------------


class OtherOutboxVersion(RecordingError):
    """An outbox file was written by a program with another event format, and is left alone.

    Raised by `OutboxFile.adopt`.
    """
