"""The client of the chaos run against a demo that nobody hurts: it knows what has to become of each event."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from proof.chaos.invariants import Violation, check
from proof.chaos.ledger import Ledger
from proof.chaos.load import Load
from proof.chaos.queues import Queues
from tests.conftest import Demo
from tests.waiting import until

pytestmark = pytest.mark.rabbitmq

Judge = Callable[[Ledger], list[Violation]]


@pytest.fixture
def demo(rabbitmq_demo: Demo) -> Iterator[Demo]:
    rabbitmq_demo.settled()
    yield rabbitmq_demo
    rabbitmq_demo.cli("dead", "drop", "--all", "--yes")


@pytest.fixture
def judge(demo: Demo) -> Judge:
    """What is wrong, less what other tests have left there."""
    queues = Queues(demo.status()["broker"]["url"], demo.running().queue())

    def violations(ledger: Ledger) -> list[Violation]:
        return check(ledger, demo.status()["database"]["url"], queues.dead_letters(), demo.state)

    before = {violation.id for violation in violations(Ledger())}
    return lambda ledger: [violation for violation in violations(ledger) if violation.id not in before]


def test_everything_that_it_sends_is_accounted_for_and_a_row_that_vanishes_is_missed(demo: Demo, judge: Judge) -> None:
    load = Load(
        demo.url, demo.running().document["secret_key"], broker_url=demo.status()["broker"]["url"], seed=7, rate=600
    )
    accepted = 0

    def go_on() -> None:
        nonlocal accepted
        accepted += 400
        until(lambda: load.sample()["accepted"] >= accepted, 20, what="views to be accepted")

    def erase(viewer_id: str) -> None:
        demo.cli("erase", viewer_id, "--yes")

    load.start()
    go_on()
    load.poison(6)
    load.duplicates(True)  # noqa: FBT003 (a switch)
    go_on()
    load.duplicates(False)  # noqa: FBT003
    load.clock_skew(3600)
    go_on()
    load.clock_skew(-3600)
    load.erase_one(erase)
    go_on()
    assert load.finish(30) == []
    until(lambda: not judge(load.ledger), 20, what="everything to be right", every_s=0.5)
    assert load.ledger.sent.keys() == load.ledger.accepted.keys()
    assert load.ledger.refused == {}
    assert len(load.ledger.poison) == 6
    assert len(load.ledger.erased) == 1
    assert load.sample()["attempts"] > len({id(sending) for sending in load.ledger.sent.values()})

    event = next(event for event in load.ledger.accepted.values() if event.viewer_id not in load.ledger.erased)
    with psycopg.connect(demo.status()["database"]["url"]) as connection:
        connection.execute("DELETE FROM view_events WHERE event_id = %s", [event.event_id])
    violations = {violation.kind: violation for violation in judge(load.ledger)}
    assert violations["lost"].id == event.event_id
    assert any("202" in line or "confirmed" in line for line in violations["lost"].trail)
    assert violations["duplicated"].id == violations["derived"].id == event.playback_id
