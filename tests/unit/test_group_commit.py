"""What waits for a process of the pool is written together, and each message keeps its own end."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.exceptions import Reject
from kombu.asynchronous.semaphore import LaxBoundedSemaphore
from kombu.message import Message

from safe_consumer.dead_letter_reasons import Malformed, check_outline
from safe_consumer.group_commit import GroupCommit
from tests.fakes import consumer_options
from view_events.event import TASK

PROCESSES = 1


@dataclass(eq=False)
class Request:
    """As Celery's, as far as it is asked: what became of its message stands in `ends`."""

    id: str
    message: Message
    name: str = TASK
    delivery_info: dict[str, Any] = field(default_factory=dict)
    ends: list[str] = field(default_factory=list)

    @property
    def request_dict(self) -> dict[str, Any]:
        return {"id": self.id}

    def on_accepted(self, _pid: int, _at: float) -> None:
        self.ends.append("accepted")

    def on_success(self, result: tuple[bool, Any, float]) -> None:
        self.ends.append("given back" if result[0] else "acknowledged")

    def on_failure(self, _info: Any) -> None:
        self.ends.append("lost")

    def reject(self, *, requeue: bool) -> None:
        self.ends.append(f"rejected, requeue={requeue}")

    def execute_using_pool(self, pool: Pool) -> None:
        pool.by_itself.append(self.id)


class Pool:
    """As the worker's with its semaphore: `end` gives the slot back, as billiard does after the callbacks."""

    def __init__(self) -> None:
        self.semaphore = LaxBoundedSemaphore(PROCESSES)
        self.jobs: list[Any] = []
        self.by_itself: list[str] = []
        self.told: list[tuple[str, str]] = []

    def hand_on(self, request: Any) -> None:
        self.semaphore.acquire(request.execute_using_pool, self)

    def log_malformed(self, message: Message, malformed: Malformed) -> None:
        self.told.append((message.headers["id"], malformed.reason.kind))

    def apply_async(self, target: Any, args: Any, **callbacks: Any) -> None:
        self.jobs.append(SimpleNamespace(target=target, args=args, **callbacks))

    def end(self, result: Any = (0, "None", 0.1)) -> None:
        job = self.jobs.pop(0)
        job.accept_callback(1, 0.0)
        job.callback(result)
        self.semaphore.release()

    def carried(self) -> list[list[str]]:
        """The ids of the messages of each job."""
        return [[delivery.task_id for delivery in job.args[3][0][0]] for job in self.jobs]


def request(number: int, body: str = '[[[]], {"version": 1}, {}]', **options: Any) -> Request:
    message = Message(
        body=body,
        content_type="application/json",
        content_encoding="utf-8",
        headers={"id": f"task-{number}", "task": TASK},
    )
    check_outline(message)
    return Request(f"task-{number}", message, **options)


@pytest.fixture
def pool() -> Pool:
    return Pool()


@pytest.fixture
def gather(pool: Pool) -> GroupCommit:
    return GroupCommit(pool.hand_on, consumer_options(), pool.log_malformed)


def failed(error: Exception) -> tuple[int, Any, float]:
    return 1, wrapped(error), 0.1


def wrapped(error: Exception) -> ExceptionInfo:
    """As it comes from a process of the pool."""
    try:
        raise error  # noqa: TRY301
    except Exception:  # noqa: BLE001
        return ExceptionInfo()


def test_the_first_goes_at_once_and_what_comes_meanwhile_goes_together(pool: Pool, gather: GroupCommit) -> None:
    requests = [request(number) for number in range(4)]
    for one in requests:
        gather(one)
    assert pool.carried() == [["task-0"]]
    assert pool.jobs[0].args[0] == consumer_options().group_task
    pool.end()
    assert pool.carried() == [["task-1", "task-2", "task-3"]]
    pool.end()
    assert [one.ends for one in requests] == [["accepted", "acknowledged"]] * 4


def test_a_task_of_another_name_goes_its_own_way(pool: Pool, gather: GroupCommit) -> None:
    gather(request(1, name="celery.ping"))
    assert (pool.carried(), pool.by_itself) == ([], ["task-1"])


def test_one_that_was_delivered_before_goes_by_itself(pool: Pool, gather: GroupCommit) -> None:
    """It may be what killed its worker. Who goes with it would go down with it, again and again."""
    gather(request(0))
    for number, redelivered in ((1, False), (2, True), (3, False)):
        gather(request(number, delivery_info={"redelivered": redelivered}))
    carried = []
    while pool.jobs:
        carried += pool.carried()
        pool.end()
    assert carried == [["task-0"], ["task-1", "task-3"], ["task-2"]]


def test_a_transaction_has_its_limit(pool: Pool) -> None:
    gather = GroupCommit(
        pool.hand_on, consumer_options(group_bytes=2 * len(request(0).message.body)), pool.log_malformed
    )
    for number in range(6):
        gather(request(number))
    sizes = []
    while pool.jobs:
        sizes += [len(ids) for ids in pool.carried()]
        pool.end()
    assert sizes == [1, 2, 2, 1]


def test_when_something_is_wrong_with_one_each_is_tried_by_itself(pool: Pool, gather: GroupCommit) -> None:
    requests = [request(number) for number in range(3)]
    for one in requests:
        gather(one)
    pool.end()
    pool.end(failed(ValueError("one of them")))
    for _ in range(2):
        pool.semaphore.release()
    assert pool.by_itself == ["task-1", "task-2"]
    assert [one.ends[1:] for one in requests] == [["acknowledged"], [], []]


def test_what_no_process_could_decode_is_told_and_rejected_then(pool: Pool, gather: GroupCommit) -> None:
    damaged = request(1, '[[["\\ud800 and no more"]], {"version": 1}, {}]')
    object.__setattr__(damaged.message, "body", b'[[["\xff"]], {}, {}]')
    gather(damaged)
    pool.end(failed(ValueError("no event")))
    assert (pool.by_itself, damaged.ends) == ([], ["accepted", "rejected, requeue=False"])
    assert pool.told == [("task-1", "undecodable")]


def test_a_worker_that_stops_gives_all_of_them_back(pool: Pool, gather: GroupCommit) -> None:
    requests = [request(number) for number in range(3)]
    for one in requests:
        gather(one)
    pool.end()
    pool.end(failed(Reject("the worker stops", requeue=True)))
    assert [one.ends[-1] for one in requests] == ["acknowledged", "given back", "given back"]
    assert pool.by_itself == []


def test_a_process_that_dies_takes_each_of_its_messages_with_it(pool: Pool, gather: GroupCommit) -> None:
    requests = [request(number) for number in range(3)]
    for one in requests:
        gather(one)
    pool.end()
    pool.jobs[0].error_callback(wrapped(WorkerLostError("signal 9")))
    assert [one.ends[-1] for one in requests] == ["acknowledged", "lost", "lost"]


def test_what_was_thrown_away_with_its_connection_takes_nothing_new_with_it(pool: Pool, gather: GroupCommit) -> None:
    gather(request(0))
    gather(request(1))
    pool.semaphore.clear()  # Celery, on a lost connection; consumer_timeout.py, when it requeues all messages
    gather(request(2))
    gather(request(3))
    assert pool.carried() == [["task-0"], ["task-2"]]
    pool.end()
    assert pool.carried() == [["task-2"], ["task-3"]]


def test_a_body_is_looked_at_and_not_decoded() -> None:
    body = json.dumps([[[{"event_id": "1"}]], {"version": 1}, {}])
    assert bytes(request(0, body).message.payload[0][0]) == b'[{"event_id": "1"}]'
