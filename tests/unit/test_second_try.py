"""What waits in `history.alone` is tried with nothing lost, and takes no more of the pool than is its due."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import amqp
import pytest
from celery import Celery
from celery.exceptions import Reject
from kombu.asynchronous.semaphore import LaxBoundedSemaphore
from kombu.message import Message

from safe_consumer import second_try
from safe_consumer.dead_letter_reasons import ALONE_SINCE, KIND
from safe_consumer.second_try import SecondTry, try_one, try_waiting
from tests.fakes import an_event
from view_events import topology
from view_events.event import TASK, VERSION, encode

PROCESSES = 2


class Job:
    """What a pool was given to do."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.done = False

    def ready(self) -> bool:
        return self.done


class FakePool:
    """As billiard's: it gives a slot back at the end of whatever it ran, also of what took none."""

    def __init__(self) -> None:
        self.semaphore = LaxBoundedSemaphore(PROCESSES)
        self.jobs: list[Job] = []

    def apply_async(self, target: Any) -> Job:
        job = Job(target)
        self.jobs.append(job)
        return job

    def end_one(self) -> None:
        job = self.jobs.pop(0)
        self.semaphore.release()
        job.done = True

    def checks(self) -> int:
        return sum(job.target is try_waiting for job in self.jobs)


def test_a_look_takes_its_slot_of_the_pool_as_a_task_does() -> None:
    pool, step = FakePool(), SecondTry(None)
    for _ in range(64):
        pool.semaphore.acquire(pool.apply_async, "task")
    looks = 0
    for _ in range(100):
        step.request_check(pool, pool.semaphore)
        assert len(pool.jobs) <= PROCESSES, "the pool was given more than it has processes"
        looks += pool.jobs[0].target is try_waiting
        pool.end_one()
    assert looks > 1
    while pool.jobs:
        pool.end_one()
    assert pool.semaphore.value == PROCESSES


def test_there_is_one_look_at_a_time() -> None:
    pool, step = FakePool(), SecondTry(None)
    for _ in range(3):
        step.request_check(pool, pool.semaphore)
    assert pool.checks() == 1
    pool.end_one()
    for _ in range(PROCESSES):
        pool.semaphore.acquire(pool.apply_async, "task")
    for _ in range(3):
        step.request_check(pool, pool.semaphore)
    assert pool.checks() == 0
    pool.end_one()
    assert pool.checks() == 1
    while pool.jobs:
        pool.end_one()
        assert pool.checks() <= 1


def test_a_look_that_was_forgotten_with_what_waited_for_a_process_is_asked_for_again() -> None:
    pool, step = FakePool(), SecondTry(None)
    for _ in range(PROCESSES):
        pool.semaphore.acquire(pool.apply_async, "task")
    step.request_check(pool, pool.semaphore)
    assert pool.checks() == 0
    pool.semaphore.clear()  # the connection was lost, or the worker requeues its messages
    step.request_check(pool, pool.semaphore)
    assert pool.checks() == 1


def test_a_pool_without_a_semaphore_is_asked_as_it_is() -> None:
    pool, step = FakePool(), SecondTry(None)
    step.request_check(pool, None)
    assert pool.checks() == 1


class FakeChannel:
    """Remembers in which order it was told what, and the headers of what was published last."""

    no_ack_consumers = None

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.headers: dict[str, Any] = {}

    def basic_publish(self, message: Any, *, routing_key: str, **_: Any) -> None:
        self.headers = message.properties["application_headers"]
        self.calls.append(f"publish to {routing_key}")

    def basic_ack(self, tag: int, **_: Any) -> None:
        self.calls.append(f"ack {tag}")


@pytest.fixture
def channel() -> FakeChannel:
    return FakeChannel()


def take_one(channel: FakeChannel, events: object, *, version: int = VERSION, **headers: Any) -> bool:
    """Take a message that is there for its try."""
    body = json.dumps([[events], {"version": version}, {}])
    headers = {"task": TASK, "id": "7d0b", ALONE_SINCE: "then", **headers}
    form = {"content_type": "application/json", "content_encoding": "utf-8"}
    message = Message(body=body, headers=headers, delivery_tag=7, channel=channel, **form)
    return try_one(
        cast("Any", channel), amqp.Message(body, application_headers=headers, **form), message, topology.ALONE
    )


def tried_by(monkeypatch: pytest.MonkeyPatch, task: Callable[..., None]) -> None:
    """This function is the task."""
    app = Celery(set_as_current=False)
    app.task(name=TASK, shared=False)(task)
    monkeypatch.setattr(second_try, "current_app", app)


def test_what_its_task_gives_back_is_not_counted_as_a_try(
    monkeypatch: pytest.MonkeyPatch, channel: FakeChannel
) -> None:
    def give_back(*_: object, **__: object) -> None:
        raise Reject("the worker stops", requeue=True)

    tried_by(monkeypatch, give_back)
    assert not take_one(channel, encode([an_event()]), **{"x-delivery-count": 2})
    assert channel.calls == ["publish to history.alone", "ack 7"]
    assert channel.headers == {"task": TASK, "id": "7d0b", ALONE_SINCE: "then"}


def test_a_batch_with_an_event_that_is_none_is_tried(monkeypatch: pytest.MonkeyPatch, channel: FakeChannel) -> None:
    tried: list[object] = []

    def note(events: object, **_: object) -> None:
        tried.append(events)

    tried_by(monkeypatch, note)
    batch = [*encode([an_event()]), 7]
    assert take_one(channel, batch)
    assert tried == [batch]
    assert channel.calls == ["ack 7"]


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"events": [], "task": 7}, "undecodable"),
        ({"events": [], "task": "history.forget"}, "unknown-task"),
        ({"events": [], "version": VERSION + 1}, "unknown-version"),
        ({"events": "events"}, "no-event"),
    ],
)
def test_what_no_task_can_run_is_given_up(message: dict[str, Any], kind: str, channel: FakeChannel) -> None:
    assert take_one(channel, **message)
    assert channel.calls == ["publish to views.dead", "ack 7"]
    assert channel.headers[KIND] == kind
