"""Playing a schedule of faults."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

from proof.chaos import faults
from proof.chaos.errors import NotHealed, PartMissing
from proof.chaos.faults import FAULTS, Scene, describe
from proof.chaos.player import FaultRunner
from proof.chaos.schedule import Planned, one_outage, schedule


class Stage:
    """Stands for the stack: remembers what was done to it."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.told: list[str] = []

    def report(self, _at_s: float, sign: str, _text: str) -> None:
        self.told.append(sign)

    def play(self, *plan: Planned, stopped: bool = False) -> FaultRunner:
        event = threading.Event()
        if stopped:
            event.set()
        player = FaultRunner(cast("Scene", self), plan, self.report, event)
        player.play(max(record.end_s for record in plan) + 0.1)
        return player


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """With three faults of its own in the place of the real ones."""
    monkeypatch.setattr(faults, "FAULTS", {})
    monkeypatch.setattr(faults, "_WORDS", {})

    @faults.fault("good", "{what} breaks")
    def _good(scene: Any, what: str) -> Iterator[None]:
        scene.did.append(f"{what} broken")
        yield
        scene.did.append(f"{what} healed")

    @faults.fault("absent", "nobody breaks")
    def _absent(_scene: Any) -> Iterator[None]:
        raise PartMissing
        yield

    @faults.fault("lasting", "it stays broken")
    def _lasting(_scene: Any) -> Iterator[None]:
        yield
        raise NotHealed("the alarm stays")

    return Stage()


def test_faults_begin_and_heal_in_their_time_and_may_overlap(stage: Stage) -> None:
    player = stage.play(Planned(0.1, 0.8, "good", {"what": "a"}), Planned(0.3, 0.5, "good", {"what": "b"}))
    assert stage.did[:2] == ["a broken", "b broken"]
    assert sorted(stage.did[2:]) == ["a healed", "b healed"]
    assert [record.text for record in player.happened] == ["a breaks", "b breaks"]
    assert not player.failures


def test_a_fault_that_finds_nobody_does_not_count(stage: Stage) -> None:
    player = stage.play(Planned(0, 0.1, "absent"))
    assert (player.happened, player.failures, stage.told) == ([], [], ["-"])


def test_a_fault_that_cannot_be_healed_spoils_the_run(stage: Stage) -> None:
    player = stage.play(Planned(0, 0.1, "lasting"))
    assert any("the alarm stays" in failure for failure in player.failures)


def test_a_run_that_is_stopped_heals_what_it_has_begun(stage: Stage) -> None:
    stage.play(Planned(0, 600, "good", {"what": "a"}), stopped=True)
    assert stage.did in ([], ["a broken", "a healed"])


def test_every_fault_that_can_be_planned_is_known_and_can_be_told() -> None:
    planned = [record for seed in range(8) for record in schedule(seed, 120, browser=True)] + one_outage("broker", 120)
    assert {record.name for record in planned} == set(FAULTS)
    assert all(describe(record) for record in planned)
