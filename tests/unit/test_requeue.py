"""How messages go back to their queue, and what a cancelled consumer does: RabbitMQ 4.3 counts a reject, not a nack."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import kombu
import pytest
from amqp import spec
from amqp.exceptions import NotFound
from celery.exceptions import Reject
from celery.worker import state
from kombu.message import Message

from safe_consumer import options
from safe_consumer.consumer_timeout import ConsumerTimeout
from safe_consumer.request import Request, requeue
from tests.fakes import consumer_options


class Channel:
    """As py-amqp's: remembers what it was told."""

    no_ack_consumers = None

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.consumed: list[dict[str, Any]] = []

    def send_method(self, method: Any, _signature: str, arguments: tuple[Any, ...]) -> None:
        self.told.append((method, *arguments))

    def basic_reject(self, tag: int, *, requeue: bool) -> None:
        self.told.append(("reject", tag, requeue))

    def basic_consume(self, *_args: Any, **options: Any) -> None:
        self.consumed.append(options)


def a_request(channel: Channel, tag: int = 1) -> Request:
    message = Message(body=b'[[[]], {"version": 1}, null]', delivery_tag=tag, channel=channel)
    request = Request.__new__(Request)
    request._message = message  # noqa: SLF001
    request._connection_errors = ()  # noqa: SLF001
    request._eventer = None  # noqa: SLF001
    request.id = str(tag)
    return request


def test_a_message_is_requeued_once_and_without_a_count() -> None:
    channel = Channel()
    request = a_request(channel, 7)
    request.requeue()
    request.requeue()
    requeue(request.message)
    assert channel.told == [(spec.Basic.Nack, 7, False, True)]
    assert request.acknowledged


def test_what_a_stopping_worker_gives_back_costs_no_delivery() -> None:
    channel = Channel()
    request = a_request(channel)
    request.on_failure(SimpleNamespace(exception=Reject("the worker stops", requeue=True)))
    assert channel.told == [(spec.Basic.Nack, 1, False, True)]


def test_nothing_is_revoked() -> None:
    request = a_request(Channel())
    state.revoked.add(request.id)
    try:
        assert not request.revoked()
    finally:
        state.revoked.discard(request.id)


@pytest.fixture
def consumer() -> Any:
    """As Celery's, with one message delivered and not acknowledged."""
    channel = Channel()
    names: list[str] = []
    app = SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(deselect=lambda _: None)))
    options.use(app, consumer_options(queue=cast("kombu.Queue", Queue())))
    return SimpleNamespace(
        on_task_message=set(),
        connection=SimpleNamespace(default_channel=channel),
        controller=SimpleNamespace(semaphore=None),
        task_consumer=SimpleNamespace(queues=[SimpleNamespace(name="history")], cancel_by_queue=lambda _: None),
        app=app,
        add_task_queue=names.append,
        names=names,
    )


class Queue:
    """The work queue, which is there or not."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def __call__(self, _channel: Any) -> Queue:
        return self

    def queue_declare(self, *, passive: bool) -> None:
        assert passive
        if self.error:
            raise self.error


def test_a_consumer_that_rabbitmq_cancels_requeues_its_messages(consumer: Any) -> None:
    channel = consumer.connection.default_channel
    ConsumerTimeout(consumer).notice_cancels_on(channel)
    channel.basic_consume("history", on_cancel=None)
    (amqps,) = channel.consumed
    request = a_request(channel, 3)
    (note,) = consumer.on_task_message
    note(request)
    amqps["on_cancel"]("the consumer's tag")
    assert channel.told == [(spec.Basic.Nack, 3, False, True)]


def test_a_consumer_whose_queue_is_gone_connects_anew(consumer: Any) -> None:
    options.use(consumer.app, consumer_options(queue=cast("kombu.Queue", Queue(NotFound("no queue")))))
    with pytest.raises(NotFound):
        ConsumerTimeout(consumer).cancelled("the consumer's tag")
