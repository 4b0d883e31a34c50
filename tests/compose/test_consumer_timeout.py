"""RabbitMQ's consumer_timeout: since 4.3 it cancels the worker's consumer and leaves the channel open."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.client import a_view
from tests.compose.asking import BROKER_S, RECONNECT_S, consumers, wait_until_all_is_stored
from tests.compose.stack import Stack
from tests.waiting import until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300)]

#: Not one delivery may be counted: a second one after a count would be a dead letter.
IMPATIENT = {"consumer-timeout": 3_000, "delivery-limit": 0}
CANCELLED_S = 30


@pytest.fixture
def impatient(stack: Stack) -> Iterator[Stack]:
    """The usual stack, with a broker that lets a worker keep a message unacknowledged for three seconds."""
    ctl = ("exec", "-T", "rabbitmq", "rabbitmqctl", "--quiet")
    policy = ("--priority", "9", "--apply-to", "queues", "it", "^history$", json.dumps(IMPATIENT))
    stack.compose(*ctl, "set_policy", *policy)
    stack.compose("restart", "--timeout", "20", "history-worker")  # a policy holds for consumers that come after it
    try:
        yield stack
    finally:
        stack.compose(*ctl, "clear_policy", "it")
        stack.compose("restart", "--timeout", "20", "history-worker")


def said(stack: Stack, event: str) -> int:
    return sum(line.get("event", "").startswith(event) for line in stack.logs("history-worker"))


def dead_letters(stack: Stack) -> int:
    return int((stack.rabbitmq("queues/%2F/views.dead") or {}).get("messages", 0))


def test_a_worker_whose_consumer_is_cancelled_loses_and_burns_nothing(impatient: Stack) -> None:
    stack = impatient
    workers, dead = stack.containers("history-worker"), dead_letters(stack)
    cancelled = said(stack, "RabbitMQ cancelled")
    alice = stack.viewer("alice")
    wait_until_all_is_stored(stack, alice.record([a_view()]))  # by the worker that was started anew
    stack.compose("stop", "--timeout", "5", "postgres")
    try:
        ids = alice.record([a_view() for _ in range(5)]) + alice.record([a_view() for _ in range(5)])
        until(
            lambda: said(stack, "RabbitMQ cancelled") > cancelled, CANCELLED_S, what="RabbitMQ to cancel", every_s=0.5
        )
        until(lambda: consumers(stack) == 0, BROKER_S, what="nobody to consume", every_s=0.5)
    finally:
        stack.compose("up", "--detach", "--wait", "--no-recreate", "postgres")
    wait_until_all_is_stored(stack, ids, within_s=RECONNECT_S)
    until(lambda: consumers(stack) > 0, BROKER_S, what="the worker to consume", every_s=0.5)
    assert stack.containers("history-worker") == workers
    assert all(stack.inspect(one)["RestartCount"] == 0 for one in workers)
    assert dead_letters(stack) == dead
