"""What can end a lesson."""

from __future__ import annotations

from collections.abc import Sequence

from lessons.harness.events import Broken
from lessons.harness.language import ENGLISH


class NotProved(AssertionError):
    """At least one proof failed. `stopped_by`: the error after which the lesson could not go on, if there was one."""

    def __init__(self, broken: Sequence[Broken], stopped_by: Exception | None = None) -> None:
        first = broken[0]
        difference = ENGLISH.difference(first.expected, first.found)
        super().__init__(f"{ENGLISH.text(first.sentence, first.values)} {difference}")
        self.broken = broken
        self.stopped_by = stopped_by


class Skipped(Exception):
    """The lesson needs something that this machine lacks; the message says what."""
