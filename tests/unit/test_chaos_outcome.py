"""What a run says in the end."""

from __future__ import annotations

from typing import get_args

import pytest

from proof.chaos.invariants import Kind, Violation
from proof.chaos.player import FaultRecord
from proof.chaos.runner import Outcome
from proof.chaos.schedule import Planned

HAPPENED = [FaultRecord(Planned(1, 2, "cut", {"link": "web-broker"}), "web-broker: cut", 1.0, 3.0)]


def outcome(*violations: Violation, complaints: tuple[str, ...] = ()) -> Outcome:
    return Outcome(
        seed=7,
        accepted=100,
        stored=98,
        violations=list(violations),
        dead=3,
        poison=3,
        redelivered=12,
        happened=HAPPENED,
        complaints=list(complaints),
    )


def test_the_last_line_counts_what_was_lost_and_what_was_stored_twice() -> None:
    found = outcome(Violation("lost", "1", ""), Violation("lost", "2", ""), Violation("duplicated", "3", ""))
    assert found.last_line == (
        "chaos: accepted=100 stored=98 lost=2 duplicated=1 dead=3 poison=3 redelivered=12 faults=1 seed=7"
    )


def test_a_run_passes_without_violations_and_complaints_only() -> None:
    assert outcome().passed
    assert not outcome(complaints=("nothing was delivered again",)).passed


@pytest.mark.parametrize("kind", get_args(Kind))
def test_each_kind_of_violation_fails_a_run(kind: Kind) -> None:
    assert not outcome(Violation(kind, "1", "")).passed
