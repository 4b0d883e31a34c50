"""The schedule of faults."""

from __future__ import annotations

from itertools import combinations

import pytest

from proof.chaos.schedule import AT_A_TIME, LINKS, MARGIN_S, PARTS, TO_A_PAGE, Planned, one_outage, schedule

#: What `two_minutes` takes.
SECONDS = 120
#: They happen to the views, not to a part or a link.
GUESTS = {"clock", "duplicates", "poison", "killers", "erase"}


def disturbances(planned: list[Planned]) -> list[Planned]:
    return [one for one in planned if one.name not in GUESTS]


@pytest.mark.parametrize("seconds", [30, SECONDS, 1200])
def test_the_same_seed_gives_the_same_schedule_and_another_seed_another(seconds: int) -> None:
    assert schedule(7, seconds) == schedule(7, seconds)
    assert schedule(7, seconds) != schedule(8, seconds)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("seconds", [30, SECONDS, 1200])
def test_every_fault_is_healed_well_before_the_end(seed: int, seconds: int) -> None:
    assert all(0 < one.start_s <= one.end_s <= seconds - MARGIN_S + 0.1 for one in schedule(seed, seconds))


@pytest.mark.parametrize("seed", range(20))
def test_at_least_three_faults_a_minute(seed: int) -> None:
    assert len(disturbances(schedule(seed, SECONDS))) >= 6
    assert len(disturbances(schedule(seed, 1200))) >= 60


def test_every_fault_appears_over_a_few_seeds() -> None:
    seen = [one for seed in range(8) for one in schedule(seed, SECONDS)]
    for name in ("kill", "freeze"):
        assert {one.parameters["part"] for one in seen if one.name == name} == set(PARTS)
    for name in ("cut", "delay", "swallow"):
        assert {one.parameters["link"] for one in seen if one.name == name} == set(LINKS)
    assert {one.name for one in seen} == {
        "kill",
        "freeze",
        "cut",
        "delay",
        "swallow",
        "memory-alarm",
        "outbox-full",
        *GUESTS,
    }
    assert {one.parameters["kind"] for one in seen if one.name == "killers"} == {"child", "parent"}


@pytest.mark.parametrize("seed", range(20))
def test_every_run_has_its_guests_and_a_worker_that_dies_with_messages_in_its_hands(seed: int) -> None:
    planned = schedule(seed, SECONDS)
    assert {one.name for one in planned} >= GUESTS
    assert any(one.parameters.get("with_unacked") and one.parameters["part"] == "worker-parent" for one in planned)


@pytest.mark.parametrize("seed", range(20))
def test_faults_overlap_but_never_two_on_the_same_thing(seed: int) -> None:
    planned = disturbances(schedule(seed, 1200))
    together = [(a, b) for a, b in combinations(planned, 2) if a.start_s < b.end_s and b.start_s < a.end_s]
    assert together
    for one, other in together:
        assert one.disturbs != other.disturbs
        assert "everything" not in {one.disturbs, other.disturbs}
    for one in planned:
        assert sum(other.start_s <= one.start_s < other.end_s for other in planned) <= AT_A_TIME


def test_one_outage_lasts_nearly_as_long_as_the_run() -> None:
    (outage,) = one_outage("broker", 600)
    assert outage.duration_s > 580
    assert outage.parameters == {"part": "broker"}


@pytest.mark.parametrize("seed", range(20))
def test_in_learner_mode_nothing_happens_that_needs_a_broker(seed: int) -> None:
    planned = schedule(seed, SECONDS, learner_mode=True)
    assert len(disturbances(planned)) >= 6
    assert {one.name for one in planned} >= {"kill", "erase", "duplicates", "clock"}
    assert not {one.name for one in planned} & {"memory-alarm", "poison", "killers"}
    assert "broker" not in {one.parameters.get("part") for one in planned}


@pytest.mark.parametrize("seed", range(20))
def test_with_a_browser_its_link_its_clock_and_its_file_misbehave_beside_all_the_others(seed: int) -> None:
    planned = schedule(seed, SECONDS, browser=True)
    to_the_page = [one for one in planned if one.name in TO_A_PAGE]
    assert {one.name for one in to_the_page} == set(TO_A_PAGE)
    assert [one for one in planned if one not in to_the_page] == schedule(seed, SECONDS)
    assert all(one.end_s <= SECONDS - MARGIN_S + 0.1 for one in to_the_page)
