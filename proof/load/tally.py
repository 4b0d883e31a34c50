"""What was sent, what was accepted, and the verdict: was all of it stored, and counted once?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

#: One event as it is sent: the fields of `POST /api/views`.
View = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the history says of some ids: which are not stored, and what the playbacks of the others have counted."""

    ids: tuple[str, ...]
    missing: frozenset[str]
    counted: int

    @property
    def stored(self) -> int:
        return len(self.ids) - len(self.missing)


class Tally:
    """Every event of a run, by playback.

    An event that was sent and not (yet) answered with 202 is in doubt: its answer may have been lost on the way, so it
    may be stored as well. That is no fault, but it counts in its playback, so that whoever compares has to know it.
    """

    def __init__(self) -> None:
        self._playbacks: dict[str, set[str]] = {}
        self._accepted: set[str] = set()
        self._unseen: dict[str, None] = {}  # a set that keeps its order: the oldest first

    @property
    def sent(self) -> int:
        return sum(len(ids) for ids in self._playbacks.values())

    @property
    def accepted(self) -> int:
        return len(self._accepted)

    @property
    def seen(self) -> int:
        """How many of the accepted events are known to be stored."""
        return len(self._accepted) - len(self._unseen)

    def sending(self, views: Iterable[View]) -> None:
        """Call it before they leave: nobody knows where a request that broke off has got to."""
        for view in views:
            self._playbacks.setdefault(view["playback_id"], set()).add(view["event_id"])

    def accept(self, ids: Iterable[str]) -> None:
        """These were answered with 202. Again is harmless: a client that saw no answer sends again."""
        for event_id in ids:
            if event_id not in self._accepted:
                self._accepted.add(event_id)
                self._unseen[event_id] = None

    def unseen(self, most: int) -> list[str]:
        """Accepted events not known to be stored, the longest not asked for first."""
        return list(islice(self._unseen, most))

    def asked(self, receipt: Receipt) -> None:
        """Take note of what is stored; what is not goes to the end of the line."""
        for event_id in receipt.ids:
            if event_id in self._unseen:
                del self._unseen[event_id]
                if event_id in receipt.missing:
                    self._unseen[event_id] = None

    def slices(self, size: int) -> Iterator[tuple[str, ...]]:
        """Every id ever sent, about `size` at a time. A playback is never cut: what it counted is one number."""
        ids: list[str] = []
        for playback in self._playbacks.values():
            if ids and len(ids) + len(playback) > size:
                yield tuple(ids)
                ids = []
            ids += playback
        if ids:
            yield tuple(ids)

    def verdict(self, receipts: Iterable[Receipt]) -> Verdict:
        """Judge by the receipts of all `slices`."""
        missing: set[str] = set()
        duplicated = uncounted = 0
        for receipt in receipts:
            missing |= receipt.missing
            duplicated += max(0, receipt.counted - receipt.stored)
            uncounted += max(0, receipt.stored - receipt.counted)
        lost = len(self._accepted & missing)
        in_doubt = self.sent - self.accepted
        return Verdict(
            accepted=self.accepted,
            stored=self.accepted - lost,
            lost=lost,
            duplicated=duplicated,
            uncounted=uncounted,
            in_doubt=in_doubt,
            in_doubt_stored=in_doubt - len(missing - self._accepted),
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a run ended, in events."""

    accepted: int
    stored: int  #: of the accepted ones
    lost: int  #: accepted and not stored
    duplicated: int  #: counted more than once in their playbacks
    uncounted: int  #: stored and not counted in their playbacks
    in_doubt: int  #: sent, never accepted: the client gave up, or the run ended
    in_doubt_stored: int

    @property
    def faults(self) -> list[str]:
        """What is wrong, a sentence each; empty when the promise was kept."""
        found = {
            "No event was accepted.": self.accepted == 0,
            f"{self.lost:,} accepted events are not stored.": self.lost,
            f"{self.duplicated:,} events are counted more than once.": self.duplicated,
            f"{self.uncounted:,} stored events are not counted in their playbacks.": self.uncounted,
        }
        return [sentence for sentence, wrong in found.items() if wrong]
