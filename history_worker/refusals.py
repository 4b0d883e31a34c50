"""Events that can never be stored: found one by one, so that the others of their message commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from view_events.event import ViewEvent, decode


@dataclass(frozen=True, slots=True)
class Refused:
    """One event of a message that cannot be stored, as it came, and why."""

    event: object
    reason: str


def decode_each(events: Iterable[object], version: int) -> tuple[list[ViewEvent], list[Refused]]:
    """What are events, and what are none. Raises UnknownEventVersion."""
    return decode(events, version), []


def write_what_can_be(
    batch: Sequence[ViewEvent], write: Callable[[Sequence[ViewEvent]], int]
) -> tuple[int, list[Refused]]:
    """How many rows were new, and the events that the database refuses for good."""
    return write(batch), []


def dead_letter(refused: Sequence[Refused], task_id: str) -> None:
    """Put them into the dead-letter queue, confirmed. Raises when that did not work: the message is then not acked."""
