"""Work queue: one queue, any number of workers, each message for one of them.

Workers that consume from the same queue are **competing consumers**. The broker deals out the messages to them in turn
(**round robin**), and each message goes to exactly one worker. This is how work scales **horizontally**: start more
workers. Neither the publisher nor the queue has to know.

The **prefetch** is the number of messages that a worker may have unacknowledged. Without a limit, the broker deals out
all messages at once, even if a worker is busy. With a limit, a worker gets the next message when it has finished one:
**fair dispatch**. (In Celery the limit is `worker_prefetch_multiplier`, times the number of the worker's processes.)

You will see workers that come and go, which worker gets which job, and a slow worker beside a fast one, with and
without a limit.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from kombu import Consumer, Message, Producer, Queue

from lessons.harness.stage import Stage

TRY = """
1. `.venv/bin/flixtrail lesson work_queue --set prefetch=3`: how many jobs does the slow worker have? How many does it
   work on?
2. Give only the fast worker no limit. What is a good limit for jobs of a millisecond, and for jobs of a minute?
3. Give one worker precedence: `Queue("jobs", consumer_arguments={"x-priority": 10})`. Who gets what, and until when?
"""
BREAKS = ("prefetch", 0)  # 0: no limit
WHY = {"prefetch": "With a prefetch above 1, or without one (0), the slow worker gets jobs before it has finished one."}

TWELVE, TEN = range(1, 13), range(1, 11)


class Worker:
    """Consumes from [jobs] on its own channel. A slow worker does not finish its first job in this lesson."""

    def __init__(self, connection: Any, prefetch: int = 0, *, slow: bool = False) -> None:
        self.jobs: list[int] = []
        self.slow = slow
        self.channel = connection.channel()
        Consumer(self.channel, [Queue("jobs")], on_message=self.work, prefetch_count=prefetch).consume()

    def work(self, message: Message) -> None:
        self.jobs.append(message.payload)
        if not self.slow:
            message.ack()


def play(stage: Stage, *, prefetch: int = 1) -> None:
    connection, producer = stage.connect("workers"), Producer(stage.connect("publisher").channel())
    Queue("jobs", channel=producer.channel).declare()
    workers: list[Worker] = []

    def work(jobs: range = range(0)) -> list[list[int]]:
        """Publish these jobs, let the workers work until nothing more comes, and return the jobs of each worker."""
        for job in jobs:
            producer.publish(job, routing_key="jobs")
        with suppress(TimeoutError):
            while True:
                connection.drain_events(timeout=0.1)
        return [worker.jobs for worker in workers]

    stage.say("Twelve jobs are published, and there is no worker yet.")
    work(TWELVE)
    stage.moves("job 1", "publisher", "()", "[jobs]")
    stage.prove("Twelve jobs wait in [jobs].", stage.eventually(lambda: stage.ready("jobs"), 12), 12)

    stage.say("A worker without a limit comes. A little later a second worker comes to help.")
    for slow in (True, False):
        workers.append(Worker(connection, slow=slow))
        work()
    got = stage.eventually(lambda: [len(jobs) for jobs in work()], [12, 0])
    stage.really(
        "A worker that is added gets its share of the waiting jobs.",
        "The first worker has all 12 jobs, and the second has none.",
        got,
        [12, 0],
    )
    workers.pop(0).channel.close()
    stage.moves("job 1", "first worker (gone)", "[jobs]", "second worker")
    back = stage.eventually(work, [list(TWELVE)])
    stage.prove("The first worker leaves, and all its unacknowledged jobs go to the second.", back, [list(TWELVE)])

    stage.say("Twelve new jobs for one fast worker without a limit, then for two, three and four.")
    for number in (1, 2, 3, 4):
        workers += [Worker(connection) for _ in range(number - len(workers))]
        for worker in workers:
            worker.jobs = []
        work(TWELVE)
        in_turn = [list(TWELVE[place::number]) for place in range(number)]
        got_jobs = stage.eventually(lambda: sorted(work()), in_turn)
        stage.prove(
            "Workers: {number}. Each job went to exactly one of them, in turn, {share} jobs each.",
            got_jobs,
            in_turn,
            number=number,
            share=12 // number,
        )

    def compete(limit: int, expected: list[int]) -> list[int]:
        """Ten jobs for a slow and a fast worker: how many each of them gets."""
        for worker in reversed(workers):  # the slow one last: then no worker is left to get what comes back from it
            worker.channel.close()
        producer.channel.queue_purge("jobs")
        workers[:] = [Worker(connection, limit, slow=slow) for slow in (True, False)]
        work(TEN)
        return stage.eventually(lambda: [len(jobs) for jobs in work()], expected)

    stage.say("Ten jobs for a slow and a fast worker, without a limit.")
    shares = compete(0, [5, 5])
    stage.prove("The slow worker got 5 jobs, and the fast one got 5.", shares, [5, 5])
    held = stage.eventually(lambda: stage.unacked("jobs"), 5)
    stage.really(
        "The fast worker takes over jobs of the slow one.",
        "The fast worker has nothing to do, and 5 jobs stay with the slow one.",
        held,
        5,
    )
    stage.say("The same with a prefetch of {prefetch}.", prefetch=prefetch)
    shares = compete(prefetch, [1, 9])
    stage.prove("The slow worker got 1 job, and the fast one got 9.", shares, [1, 9])
