"""Records what was sent and accepted, and gives the verdict: was everything stored, and counted once?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

#: One event as it is sent: the fields of `POST /api/views`.
View = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the history says about some ids: which are not stored, and how many the playbacks of the others have
    counted.
    """

    ids: tuple[str, ...]
    missing: frozenset[str]
    counted: int

    @property
    def stored(self) -> int:
        return len(self.ids) - len(self.missing)


class Tally:
    """Every event of a run, by playback.

    An event without a 202 (yet) is in doubt: its answer may have been lost, so it may be stored all the same. That is
    no fault. But its playback counts it, so the comparison must know about it.
    """

    def __init__(self) -> None:
        self._playbacks: dict[str, set[str]] = {}
        self._accepted: set[str] = set()
        self._not_seen: dict[str, None] = {}  # a set that keeps its order: the oldest come first

    @property
    def sent(self) -> int:
        return sum(len(ids) for ids in self._playbacks.values())

    @property
    def accepted(self) -> int:
        return len(self._accepted)

    @property
    def seen(self) -> int:
        """How many of the accepted events are known to be stored."""
        return len(self._accepted) - len(self._not_seen)

    def sending(self, views: Iterable[View]) -> None:
        """Record views. Call it before they are sent, because a request that fails may have arrived."""
        for view in views:
            self._playbacks.setdefault(view["playback_id"], set()).add(view["event_id"])

    def accept(self, ids: Iterable[str]) -> None:
        """Record ids that were answered with 202. Repeating it does no harm: a client that saw no
        answer sends again.
        """
        for event_id in ids:
            if event_id not in self._accepted:
                self._accepted.add(event_id)
                self._not_seen[event_id] = None

    def not_seen(self, most: int) -> list[str]:
        """Return accepted events that are not known to be stored. Those that were not asked for the longest time come
        first.
        """
        return list(islice(self._not_seen, most))

    def record_receipt(self, receipt: Receipt) -> None:
        """Record what is stored. Events that are not stored go to the end of the list."""
        for event_id in receipt.ids:
            if event_id in self._not_seen:
                del self._not_seen[event_id]
                if event_id in receipt.missing:
                    self._not_seen[event_id] = None

    def slices(self, size: int) -> Iterator[tuple[str, ...]]:
        """Yield every id ever sent, about `size` at a time. A playback is never split, because its
        count is one number.
        """
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
    """The result of a run, in events."""

    accepted: int
    stored: int  #: of the accepted ones
    lost: int  #: accepted and not stored
    duplicated: int  #: counted more than once in their playbacks
    uncounted: int  #: stored and not counted in their playbacks
    in_doubt: int  #: sent, but never accepted: the client gave up, or the run ended
    in_doubt_stored: int

    @property
    def faults(self) -> list[str]:
        """Return what is wrong, one sentence each. Empty if nothing is."""
        found = {
            "No event was accepted.": self.accepted == 0,
            f"{self.lost:,} accepted events are not stored.": self.lost,
            f"{self.duplicated:,} events are counted more than once.": self.duplicated,
            f"{self.uncounted:,} stored events are not counted in their playbacks.": self.uncounted,
        }
        return [sentence for sentence, wrong in found.items() if wrong]
