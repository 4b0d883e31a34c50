"""Checks what must hold after a run: every accepted view is stored once, nothing else is stored, and derived data is
right.

`judge` is a pure function. It compares what the client knows with what was found, and returns the violations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from kombu.message import Message

from proof.chaos.found import UUIDS, DeadLetter, Found, Row, read
from proof.chaos.ledger import WATCHED_IN_A_BROWSER, Erasure, Event, Ledger, Sending
from proof.chaos.trail import trail

Kind = Literal["lost", "duplicated", "never sent", "derived", "position", "dead", "watched", "unknown"]
#: Number of violations of each kind that get a trail. Reading logs takes time, and one trail is enough to begin with.
TRAILS = 20


@dataclass(frozen=True)
class Violation:
    """A rule that does not hold. `id`: of an event, or of the subject of `text`. `trail`: what is known about it."""

    kind: Kind
    id: str
    text: str
    trail: Sequence[str] = ()


def check(
    ledger: Ledger, database_url: str, dead_letters: Sequence[Message], state: Path | None = None
) -> list[Violation]:
    """Read the database and judge. The first violations of each kind get a trail, also from the folder `state`.

    Raises sqlalchemy.exc.DBAPIError.
    """
    found = read(database_url, dead_letters)
    violations, kinds = [], Counter[str]()
    for violation in judge(ledger, found):
        kinds[violation.kind] += 1
        known = trail(violation.id, ledger, found, state) if kinds[violation.kind] <= TRAILS else ()
        violations.append(replace(violation, trail=tuple(known)))
    return violations


def judge(ledger: Ledger, found: Found) -> list[Violation]:
    """Return all violations. An empty list is the proof."""
    stored = {row.event_id: row for row in found.rows}
    return [
        *_lost(ledger, stored),
        *_duplicated(found, stored),
        *_never_sent(ledger, stored),
        *_erased(ledger, stored),
        *(Violation("derived", _first_id(line), line) for line in found.differences),
        *_positions(ledger, found, stored),
        *_dead(ledger, stored, found.dead),
    ]


def _lost(ledger: Ledger, stored: Mapping[str, Row]) -> Iterator[Violation]:
    for event_id, event in ledger.accepted.items():
        if event_id not in stored and not _may_be_erased(ledger, event):
            yield Violation("lost", event_id, "accepted, and not stored")


def _may_be_erased(ledger: Ledger, event: Event) -> bool:
    """Return whether an event may have been erased: False if it was sent only after the erase. If it was sent before
    and after it, the erase knows its id.
    """
    erasure = ledger.erased.get(event.viewer_id)
    if erasure is None:
        return False
    attempts = ledger.sent[event.event_id].attempts
    return erasure.ended is None or any(attempt.began <= erasure.ended for attempt in attempts)


def _duplicated(found: Found, stored: Mapping[str, Row]) -> Iterator[Violation]:
    """Yield a violation for each time that an event counts once too often."""
    copies = Counter(row.event_id for row in found.rows)
    surplus: Counter[tuple[str, str, str]] = Counter()
    for event_id, number in copies.items():
        for _ in range(number - 1):
            surplus[stored[event_id].playback] += 1
            yield Violation("duplicated", event_id, f"stored {number} times")
    events = Counter(row.playback for row in stored.values())
    for playback in found.playbacks:
        counted, there = playback.events, events[playback.key]
        # Those above have been reported already.
        for _ in range(counted - there - surplus[playback.key]):
            yield Violation("duplicated", playback.playback_id, f"the playback counts {counted} events and has {there}")


def _never_sent(ledger: Ledger, stored: Mapping[str, Row]) -> Iterator[Violation]:
    deadly = ledger.deadly
    for event_id, row in stored.items():
        if event_id in deadly or row.video_id == WATCHED_IN_A_BROWSER:
            continue  # `_dead` reports it; the page has its own check
        sending = ledger.sent.get(event_id)
        if sending is None:
            yield Violation("never sent", event_id, f"stored, of viewer {row.viewer_id!r}, and nobody sent it")
            continue
        event = next(event for event in sending.events if event.event_id == event_id)
        for name in ("viewer_id", "video_id", "playback_id", "kind", "position_s", "played_from_s"):
            if getattr(event, name) != getattr(row, name):
                said = f"stored with {name} {getattr(row, name)!r}, sent with {getattr(event, name)!r}"
                yield Violation("never sent", event_id, said)


def _erased(ledger: Ledger, stored: Mapping[str, Row]) -> Iterator[Violation]:
    for event_id, row in stored.items():
        erasure = ledger.erased.get(row.viewer_id)
        if erasure and _from_before(row, erasure):
            yield Violation("never sent", event_id, f"stored, and its viewer, {row.viewer_id!r}, was erased after it")


def _from_before(row: Row, erasure: Erasure) -> bool:
    return erasure.ended is not None and row.received_at < erasure.began


def _positions(ledger: Ledger, found: Found, stored: Mapping[str, Row]) -> Iterator[Violation]:
    """Check each playback's position: it must be that of the latest event, by the streaming app's rules for times."""
    latest: dict[tuple[str, str, str], Row] = {}
    for event_id, row in stored.items():
        sending = ledger.sent.get(event_id)
        if sending is None:
            continue
        times = set(_times(sending, event_id, row.received_at))
        if row.at not in times:
            expected_times = " or ".join(time.isoformat() for time in sorted(times))
            yield Violation("position", event_id, f"stored as of {row.at.isoformat()}; the rules give {expected_times}")
        before = latest.get(row.playback)
        if before is None or (row.at, event_id) > (before.at, before.event_id):
            latest[row.playback] = row
    shown = {playback.key: playback.position_s for playback in found.playbacks}
    for key, row in latest.items():
        sent = next(event for event in ledger.sent[row.event_id].events if event.event_id == row.event_id)
        if shown.get(key) != sent.position_s:
            said = f"playback {key[1]} resumes at {shown.get(key)}; its latest event says {sent.position_s}"
            yield Violation("position", row.event_id, said)


def _times(sending: Sending, event_id: str, received_at: datetime) -> Iterator[datetime]:
    """Yield the possible times of an event that was received at this time (streaming_app/recording/request.py).

    The skew that `sent_at` shows is corrected, and the time is never later than the receipt. Which attempt was received
    is unknown, so every attempt gives a time.
    """
    event = next(event for event in sending.events if event.event_id == event_id)
    for attempt in sending.attempts:
        if attempt.sent_at is None:
            yield min(event.at, received_at)
        else:
            yield min(event.at + (received_at - attempt.sent_at), received_at)


def _dead(ledger: Ledger, stored: Mapping[str, Row], letters: Sequence[DeadLetter]) -> Iterator[Violation]:
    """Check that each poison and each killer is a dead letter, and nothing else is. Several times is fine:
    dead-lettering is at least once.
    """
    expected, seen = ledger.deadly, set[str]()
    for letter in letters:
        marks = letter.marks(expected)
        seen |= marks
        whole = letter.task_id in marks
        innocent = [event_id for event_id in letter.event_ids if event_id not in expected and not whole]
        for event_id in innocent:
            yield Violation("dead", event_id, f"dead-lettered, and nothing is wrong with it (task {letter.task_id})")
        if not marks and not innocent:
            said = f"a dead letter that nobody expects: {letter.text[:200]!r}"
            yield Violation("dead", letter.task_id or "", said)
    for mark, poison in expected.items():
        if poison.confirmed and mark not in seen:
            yield Violation("dead", mark, f"not in the dead-letter queue: {poison.what}")
        if mark in stored:
            yield Violation("dead", mark, f"stored: {poison.what}")


def distinct(ledger: Ledger, letters: Sequence[DeadLetter]) -> int:
    """Count the different dead letters, including unexpected ones."""
    expected = ledger.deadly
    return len({next(iter(sorted(letter.marks(expected))), letter.task_id or letter.text) for letter in letters})


def _first_id(line: str) -> str:
    ids = UUIDS.search(line)
    return ids.group() if ids else ""
