"""What happens without each safeguard: the check of `make chaos` fails, and names the kind and the event.

Each control takes one safeguard away (tests/faults/without/: a subclass, another configuration, an altered table; the
product has no switch for loss) and plays one scenario. Its twin plays the same scenario with the safeguard, beside it,
and the same check finds nothing. A check that cannot fail proves nothing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
import pytest

from proof.chaos.guests import MessageFactory
from proof.chaos.proxy import BACK, THERE
from streaming_app.recording import deadlines
from streaming_app.recording.broker import BrokerLink
from streaming_app.recording.outbox import waiting_in
from tests.conftest import Demo
from tests.demo import ROOT, environment
from tests.faults.controls import Place, Places
from tests.faults.without.links import NotMandatory, Reused, Unconfirmed
from tests.waiting import until
from view_events import topology
from view_events.event import ViewEvent

pytestmark = pytest.mark.rabbitmq

WORKER = "history_worker.app"
#: One of each kind that proof/chaos/guests.py knows.
POISONS = 6
#: Of these the worker itself sends two on, each out of a message whose other events it stores.
SENT_ON = 2


@pytest.fixture(scope="module")
def places(rabbitmq_demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    places = Places(rabbitmq_demo, tmp_path_factory.mktemp("controls"))
    yield places
    places.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests wait for a broker on a busy machine: what goes to the outbox because it takes long would not be lost."""
    monkeypatch.setattr(deadlines, "DEADLINE_S", 5)


def counted_waits(link: BrokerLink) -> Sequence[object]:
    """Grows whenever this link begins to wait for a confirm."""
    assert link._producer  # noqa: SLF001
    channel = link._producer.channel  # noqa: SLF001
    wait, waits = channel.wait, []

    def counted(methods: object, *arguments: Any, **options: Any) -> Any:
        if isinstance(methods, list):  # ack or nack; whatever else is waited for is one method
            waits.append(methods)
        return wait(methods, *arguments, **options)

    channel.wait = counted
    return waits


# -- publishing -----------------------------------------------------------------------------------------


def swallowed_by_a_dead_connection(place: Place, link: type[BrokerLink]) -> Sequence[str]:
    place.declare()
    with place.publishing(place.link(link)) as web:
        place.swallow(THERE)
        ids = place.accept(web.publish)
        place.cut()
        place.heal()
    return ids


@pytest.mark.usefixtures("patient")
def test_without_confirms_a_dead_connection_loses_views(places: Places) -> None:
    without, twin = places.play(
        partial(swallowed_by_a_dead_connection, link=Unconfirmed),
        partial(swallowed_by_a_dead_connection, link=BrokerLink),
    )
    assert without.named == without.every("lost")
    assert not twin.named


def sent_while_the_binding_is_missing(place: Place, link: type[BrokerLink]) -> Sequence[str]:
    place.declare()
    with place.publishing(place.link(link)) as web:
        with place.channel() as channel:
            topology.HISTORY(channel).unbind_from(topology.VIEWS, topology.HISTORY.routing_key)
        ids = place.accept(web.publish)
        place.declare()
    return ids


@pytest.mark.usefixtures("patient")
def test_without_mandatory_a_missing_binding_loses_views(places: Places) -> None:
    without, twin = places.play(
        partial(sent_while_the_binding_is_missing, link=NotMandatory),
        partial(sent_while_the_binding_is_missing, link=BrokerLink),
    )
    assert without.named == without.every("lost")
    assert not twin.named


def accepted_by_a_process_that_is_killed(place: Place, process: str) -> Sequence[str]:
    """The broker is away meanwhile; when it is back, so is another process."""
    place.declare()
    place.cut()
    output = place.folder / "accepter.out"
    with output.open("wb") as log:
        accepter = subprocess.Popen(
            [sys.executable, "-m", process, str(place.outbox)],
            env=environment(AMQP_URL=place.proxied_url),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )

    def publish(events: list[ViewEvent]) -> None:
        assert accepter.stdin
        with accepter.stdin as stdin:
            stdin.write(msgspec.json.encode(events))
        until(lambda: b"accepted\n" in output.read_bytes(), 20, what="the process to accept views")

    try:
        ids = place.accept(publish)
    finally:
        accepter.kill()
        accepter.wait(10)
    place.heal()
    with place.publishing(place.link()):
        until(lambda: not waiting_in(place.outbox), 20, what="another process to send what that one left")
    return ids


def test_without_an_outbox_a_killed_process_loses_views(places: Places) -> None:
    without, twin = places.play(
        partial(accepted_by_a_process_that_is_killed, process="tests.faults.without.outbox"),
        partial(accepted_by_a_process_that_is_killed, process="tests.faults.accepter"),
    )
    assert without.named == without.every("lost")
    assert not twin.named


def confirmed_too_late(place: Place, link: type[BrokerLink]) -> Sequence[str]:
    """The broker's confirm of one message comes while the next one, which is lost on its way, waits for its own."""
    place.declare()
    one = place.link(link)
    with place.publishing(one) as web:
        place.accept(web.publish)  # the first on a connection: py-amqp asks for confirms with it
        until(lambda: web.connected and not waiting_in(place.outbox), what="nothing to be under way")
        before = place.waiting()
        waits = counted_waits(one)
        place.swallow(BACK)
        place.accept(web.publish)
        until(lambda: place.waiting() > before, what="the broker to have it")
        place.swallow(THERE)
        ids = place.accept(web.publish)  # into the outbox: the broker is known not to answer
        until(lambda: len(waits) == 2 or not one.connected, what="the next message, or the end of the connection")
        place.let_pass(BACK)
        until(lambda: not waiting_in(place.outbox) or not one.connected, what="the late confirm to be taken, or not")
        place.cut()
        place.heal()
    return ids


def test_on_a_reused_connection_a_late_confirm_loses_views(places: Places) -> None:
    without, twin = places.play(partial(confirmed_too_late, link=Reused), partial(confirmed_too_late, link=BrokerLink))
    assert without.named == without.every("lost")
    assert not twin.named


# -- writing --------------------------------------------------------------------------------------------


def held_by_a_worker_that_is_killed(place: Place, app: str) -> Sequence[str]:
    with place.worker(app) as worker, place.held_back():
        ids = place.send()
        place.until_one_waits()
        if app != WORKER:
            place.until_acknowledged()
        worker.kill()
    return ids


def test_with_an_early_ack_a_killed_worker_loses_views(places: Places) -> None:
    without, twin = places.play(
        partial(held_by_a_worker_that_is_killed, app="tests.faults.without.late_ack"),
        partial(held_by_a_worker_that_is_killed, app=WORKER),
    )
    assert without.named == without.every("lost")
    assert not twin.named


def held_by_a_pool_that_is_killed(place: Place, app: str) -> Sequence[str]:
    with place.worker(app) as worker:
        with place.held_back():
            ids = place.send()
            place.until_one_waits()
            worker.kill_pool()
        until(lambda: place.stored(ids) or place.dead_letters(), 20, what="the message to come to an end", every_s=0.1)
    return ids


def test_without_reject_on_worker_lost_a_killed_pool_process_loses_views(places: Places) -> None:
    without, twin = places.play(
        partial(held_by_a_pool_that_is_killed, app="tests.faults.without.reject_on_worker_lost"),
        partial(held_by_a_pool_that_is_killed, app=WORKER),
    )
    # Not acknowledged, since `task_acks_on_failure` is off: it went to the dead letters, good as it is.
    assert without.named == without.every("lost", "dead")
    assert not twin.named


def committed_and_delivered_again(place: Place, app: str) -> Sequence[str]:
    if app != WORKER:
        place.change("ALTER TABLE view_events DROP CONSTRAINT view_events_pkey")
    with place.worker(app) as worker:
        with place.held_back():
            ids = place.send()
            place.until_one_waits()
            worker.freeze()
        until(lambda: place.stored(ids), what="the commit")
        place.cut()
        place.heal()
        worker.thaw()
        until(lambda: "redelivered=True" in worker.said(), 20, what="the redelivery to be written")
        worker.stop()
    return ids


def test_without_a_unique_key_a_redelivery_counts_twice(places: Places) -> None:
    without, twin = places.play(
        partial(committed_and_delivered_again, app="tests.faults.without.unique_key"),
        partial(committed_and_delivered_again, app=WORKER),
    )
    assert without.named == without.every("duplicated")
    assert not twin.named


def poison_among_views(place: Place, app: str) -> Sequence[str]:
    guests = MessageFactory(place.name, "clip-1")
    poisons = [guests.poison() for _ in range(POISONS)]
    with place.worker(app) as worker:
        for poison in poisons:
            place.invite(poison)
        last = place.send()
        until(lambda: place.stored(last), 20, what="all that came before the last message to be done")
        worker.stop()
    left = POISONS if app == WORKER else SENT_ON
    until(lambda: len(place.dead_letters()) == left, what="the dead letters")
    return [mark for poison in poisons if not poison.events for mark in poison.poison]


def test_without_a_dead_letter_exchange_poison_vanishes(places: Places) -> None:
    without, twin = places.play(
        partial(poison_among_views, app="tests.faults.without.dead_letter_exchange"),
        partial(poison_among_views, app=WORKER),
    )
    assert len(without.at_stake) == POISONS - SENT_ON
    assert without.named == without.every("dead")
    assert not twin.named
