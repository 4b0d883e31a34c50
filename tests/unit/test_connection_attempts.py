"""A worker whose broker refuses it says so once, in the broker's words, and tries again with pauses."""

from __future__ import annotations

import pytest
from amqp.exceptions import AccessRefused, NotAllowed, NotFound, PreconditionFailed
from structlog.testing import capture_logs

from safe_consumer.connection_attempts import (
    LOGIN,
    LONGEST_PAUSE_S,
    PERMISSIONS,
    SHAPE,
    VIRTUAL_HOST,
    ConnectionAttempts,
    what_to_do,
)

BROKER = "amqp://flixtrail:**@broker:5672/flixtrail"
LOGIN_REFUSED = AccessRefused("ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN.")


def told(attempts: ConnectionAttempts, *errors: Exception, lost: bool = False) -> list[tuple[str, str]]:
    with capture_logs() as logs:
        for error in errors:
            (attempts.lost if lost else attempts.failed)(error, BROKER)
    return [(line["event"], line["reason"]) for line in logs]


@pytest.mark.parametrize(
    ("error", "todo"),
    [
        (LOGIN_REFUSED, LOGIN),
        (NotAllowed("NOT_ALLOWED - vhost x not found"), VIRTUAL_HOST),
        (AccessRefused("ACCESS_REFUSED - configure access to exchange 'views' in vhost '/' refused"), PERMISSIONS),
        (PreconditionFailed("PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'views'"), SHAPE),
        # It is enough to connect again: the queue is declared anew; what was kept for too long is redelivered.
        (NotFound("NOT_FOUND - no queue 'history' in vhost '/'"), None),
        (PreconditionFailed("PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out"), None),
        (ConnectionRefusedError(111, "Connection refused"), None),
    ],
)
def test_a_refusal_comes_with_what_to_do(error: Exception, todo: str | None) -> None:
    assert what_to_do(error) == todo


def test_a_reason_is_told_once_and_again_when_it_changes() -> None:
    attempts = ConnectionAttempts("RabbitMQ")
    away = ConnectionRefusedError(111, "Connection refused")
    assert told(attempts, away, away, LOGIN_REFUSED, LOGIN_REFUSED, LOGIN_REFUSED) == [
        ("RabbitMQ is away", "[Errno 111] Connection refused"),
        ("RabbitMQ refuses this worker", LOGIN_REFUSED.reply_text),
    ]
    assert told(attempts, AccessRefused("ACCESS_REFUSED - access refused"), lost=True) == [
        ("RabbitMQ refuses what this worker needs", "ACCESS_REFUSED - access refused")
    ]


def test_after_it_worked_a_reason_is_news_again() -> None:
    attempts = ConnectionAttempts("RabbitMQ")
    first = told(attempts, LOGIN_REFUSED)
    with capture_logs() as logs:
        attempts.works()
        attempts.works()
    assert [line["event"] for line in logs] == ["RabbitMQ is back"]
    assert told(attempts, LOGIN_REFUSED) == first


def test_each_node_of_a_cluster_has_a_reason_of_its_own() -> None:
    attempts = ConnectionAttempts("RabbitMQ")
    with capture_logs() as logs:
        for _ in range(3):
            attempts.failed(LOGIN_REFUSED, "amqp://one")
            attempts.failed(OSError("Connection refused"), "amqp://two")
    assert len(logs) == 2


def test_pauses_grow_up_to_the_longest_and_begin_anew_after_it_worked() -> None:
    attempts = ConnectionAttempts("RabbitMQ")
    assert [attempts.next_pause_s() for _ in range(5)] == [1, 2, 4, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    attempts.works()
    assert attempts.next_pause_s() == 1
