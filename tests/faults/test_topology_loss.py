"""Somebody deletes a queue, a binding or an exchange by hand: the workers bring it back, and no view is lost.

Apart from what was in a queue when it was deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest
from kombu import Connection
from kombu.transport.base import StdChannel

from tests.client import Client, a_view
from tests.conftest import Demo
from tests.faults.accepting import accepted, stored_once
from tests.faults.workers import Management, pids
from tests.waiting import until
from view_events.topology import DEAD, DEAD_LETTERS, DIED, HISTORY, VIEWS

pytestmark = pytest.mark.rabbitmq

BACK_S = 10


def the_queue(channel: StdChannel) -> None:
    HISTORY(channel).delete()


def its_binding(channel: StdChannel) -> None:
    HISTORY(channel).unbind_from(VIEWS, routing_key=HISTORY.routing_key)


def the_exchange(channel: StdChannel) -> None:
    VIEWS(channel).delete()


def all_that_dead_letters_need(channel: StdChannel) -> None:
    DEAD_LETTERS(channel).delete()
    DEAD(channel).delete()
    DIED(channel).delete()


@pytest.mark.parametrize("deleted", [the_queue, its_binding, the_exchange, all_that_dead_letters_need])
def test_what_is_deleted_comes_back(demo: Demo, deleted: Callable[[StdChannel], None]) -> None:
    viewer_id = f"stubborn-{uuid4()}"
    client = Client(demo.url, demo.token(viewer_id))
    workers, broker = pids(demo), Management(demo)
    before = bindings(broker)
    assert before
    with Connection(demo.status()["broker"]["url"]) as connection:
        deleted(connection.channel())
    ids = [accepted(client, a_view()) for _ in range(3)]
    until(lambda: bindings(broker) == before, BACK_S, what="what was deleted to be back")
    until(lambda: len(broker.prefetches()) == len(workers), BACK_S, what="every worker to consume")
    stored_once(demo, viewer_id, ids)
    assert pids(demo) == workers


def bindings(broker: Management) -> list[tuple[str, str, str]]:
    """Of ours: from where, to where, by which key. A queue or an exchange that is missing has none."""
    ours = ("views", "history", "views.dead")
    found = [(one["source"], one["destination"], one["routing_key"]) for one in broker.ask("/bindings")]
    return sorted(one for one in found if one[0].startswith(ours))
