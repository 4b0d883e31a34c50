"""The events of one request, from their arrival until they are safe."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from view_events.event import ViewEvent


@dataclass(slots=True)
class PendingRequest:
    """The events of one request, on their way."""

    events: Sequence[ViewEvent]
    deadline: float
    #: Ends with None when the events are safe: with the broker or in the outbox. Otherwise with NotAccepted.
    safe: Future[None] = field(default_factory=Future)
    #: Whether the events are on their way to the outbox.
    storing: bool = False

    def end(self, error: BaseException | None = None) -> None:
        """End the wait. The first call counts: if both broker and outbox took the events, they were safe with the
        first.
        """
        with suppress(InvalidStateError):
            if error is None:
                self.safe.set_result(None)
            else:
                self.safe.set_exception(error)
