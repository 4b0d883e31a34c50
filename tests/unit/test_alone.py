"""Looks at `history.alone` share the pool with the tasks, and take no more of it than is theirs."""

from __future__ import annotations

from typing import Any

from kombu.asynchronous.semaphore import LaxBoundedSemaphore

from history_worker.alone import Alone, look

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

    def looks(self) -> int:
        return sum(job.target is look for job in self.jobs)


def test_a_look_takes_its_slot_of_the_pool_as_a_task_does() -> None:
    pool, alone = FakePool(), Alone(None)
    for _ in range(64):
        pool.semaphore.acquire(pool.apply_async, "task")
    looks = 0
    for _ in range(100):
        alone.look(pool, pool.semaphore)
        assert len(pool.jobs) <= PROCESSES, "the pool was given more than it has processes"
        looks += pool.jobs[0].target is look
        pool.end_one()
    assert looks > 1
    while pool.jobs:
        pool.end_one()
    assert pool.semaphore.value == PROCESSES


def test_there_is_one_look_at_a_time() -> None:
    pool, alone = FakePool(), Alone(None)
    for _ in range(3):
        alone.look(pool, pool.semaphore)
    assert pool.looks() == 1
    pool.end_one()
    for _ in range(PROCESSES):
        pool.semaphore.acquire(pool.apply_async, "task")
    for _ in range(3):
        alone.look(pool, pool.semaphore)
    assert pool.looks() == 0
    pool.end_one()
    assert pool.looks() == 1
    while pool.jobs:
        pool.end_one()
        assert pool.looks() <= 1


def test_a_look_that_was_forgotten_with_what_waited_for_a_process_is_asked_for_again() -> None:
    pool, alone = FakePool(), Alone(None)
    for _ in range(PROCESSES):
        pool.semaphore.acquire(pool.apply_async, "task")
    alone.look(pool, pool.semaphore)
    assert pool.looks() == 0
    pool.semaphore.clear()  # the connection was lost, or the worker gives back what it held
    alone.look(pool, pool.semaphore)
    assert pool.looks() == 1


def test_a_pool_without_a_semaphore_is_asked_as_it_is() -> None:
    pool, alone = FakePool(), Alone(None)
    alone.look(pool, None)
    assert pool.looks() == 1
