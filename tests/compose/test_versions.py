"""Another version of RabbitMQ below the same stack: the users' rights, Flower, and the way of a view."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client import a_view
from tests.compose.asking import BROKER_S, wait_until_all_is_stored
from tests.compose.stack import Stack
from tests.compose.test_monitoring import shown

pytestmark = [pytest.mark.compose, pytest.mark.timeout(420)]


@pytest.fixture(scope="module", params=["rabbitmq:4.0.5-management"])
def older(request: pytest.FixtureRequest, stack: Stack) -> Iterator[Stack]:
    """A second stack, of the image that the first one has built."""
    older = Stack(RABBITMQ_IMAGE=request.param, FLIXTRAIL_IMAGE=stack.env["FLIXTRAIL_IMAGE"])
    try:
        older.compose("up", "--detach", "--wait", "--no-build", "proxy", "history-worker", "history-api", "flower")
        yield older
    finally:
        older.compose("down", "--volumes", "--timeout", "5")


def test_views_are_stored_and_flower_shows_workers_tasks_and_the_queue(older: Stack) -> None:
    shown(older)
    ids = older.viewer("bob").record([a_view()])
    wait_until_all_is_stored(older, ids, within_s=BROKER_S)
    overview = older.rabbitmq("overview")
    assert overview["rabbitmq_version"].startswith("4.0.")
