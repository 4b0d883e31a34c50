"""Work queue: one queue, any number of workers, each message for one of them.

Workers that consume from the same queue are **competing consumers**: the broker deals its messages out in turn (**round
robin**), each to one of them only. That is how work scales **horizontally**: start more workers, and neither the
publisher nor the queue has to know.

How many messages a worker may hold that it has not acknowledged is its **prefetch**. Without a limit the broker deals
out everything at once, whether a worker is busy or not. With a limit whoever is done gets the next one: **fair
dispatch**. (Celery's limit is `worker_prefetch_multiplier`, times the processes of the worker.)

You will see workers that come and go, who of them gets what, and a slow one beside a quick one, with and without limit.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from kombu import Consumer, Message, Producer, Queue

from lessons.stage import Stage

TRY = """
1. `flixtrail lesson work_queue --set prefetch=3`: how many jobs does the slow one hold now? How many does it work on?
2. Let the quick worker alone have no limit. What is a good limit for jobs of a millisecond, and for jobs of a minute?
3. Give one worker precedence: `Queue("jobs", consumer_arguments={"x-priority": 10})`. Who gets what, and until when?
"""
#: A setting, and a value of it with which something cannot be proved. 0: no limit.
BREAKS = ("prefetch", 0)

TWELVE, TEN = range(1, 13), range(1, 11)


class Worker:
    """Consumes from [jobs] over a channel of its own. A slow one is still at its first job when the act ends."""

    def __init__(self, connection: Any, prefetch: int = 0, *, slow: bool = False) -> None:
        self.jobs: list[int] = []
        self.slow = slow
        self.channel = connection.channel()
        Consumer(self.channel, [Queue("jobs")], on_message=self.take, prefetch_count=prefetch).consume()

    def take(self, message: Message) -> None:
        self.jobs.append(message.payload)
        if not self.slow:
            message.ack()


def play(stage: Stage, *, prefetch: int = 1) -> None:
    connection, producer = stage.connect("workers"), Producer(stage.connect("publisher").channel())
    Queue("jobs", channel=producer.channel).declare()
    workers: list[Worker] = []

    def work(jobs: range = range(0)) -> list[list[int]]:
        """Publish these, and let the workers take whatever comes, until nothing does: the jobs of each."""
        for job in jobs:
            producer.publish(job, routing_key="jobs")
        with suppress(TimeoutError):
            while True:
                connection.drain_events(timeout=0.1)
        return [worker.jobs for worker in workers]

    stage.say("Twelve jobs, and no worker yet. The publisher need not know: the queue keeps them.")
    work(TWELVE)
    stage.moves("job 1", "publisher", "()", "[jobs]")
    stage.prove("jobs that wait", stage.eventually(lambda: stage.ready("jobs"), 12), 12)

    stage.say("A worker comes that has no limit, and a little later a second one, to help.")
    for slow in (True, False):
        workers.append(Worker(connection, slow=slow))
        work()
    got = stage.eventually(lambda: [len(jobs) for jobs in work()], [12, 0])
    stage.really("A worker that is added takes its share of what waits.", "the first one holds all of it", got, [12, 0])
    workers.pop(0).channel.close()
    stage.moves("job 1", "first worker (gone)", "[jobs]", "second worker")
    back = stage.eventually(work, [list(TWELVE)])
    stage.prove("the first goes, and all that it had not acknowledged comes to the second", back, [list(TWELVE)])

    for number in (1, 2, 3, 4):
        stage.say(f"Twelve new jobs, workers: {number}. All are quick, none has a limit.")
        workers += [Worker(connection) for _ in range(number - len(workers))]
        for worker in workers:
            worker.jobs = []
        work(TWELVE)
        in_turn = [list(TWELVE[place::number]) for place in range(number)]
        stage.prove("each job went to exactly one, in turn", stage.eventually(lambda: sorted(work()), in_turn), in_turn)

    for limit, which, shares in ((0, "no limit", [5, 5]), (prefetch, f"a prefetch of {prefetch}", [1, 9])):
        stage.say(f"A slow worker (still at its first job) and a quick one, ten jobs, {which}.")
        for worker in reversed(workers):  # the slow one last: nobody is there to get what it gives back
            worker.channel.close()
        producer.channel.queue_purge("jobs")
        workers[:] = [Worker(connection, limit, slow=slow) for slow in (True, False)]
        work(TEN)
        seen = stage.eventually(lambda: [len(jobs) for jobs in work()], shares)
        stage.prove("jobs of the slow and of the quick one", seen, shares)
        if not limit:
            claim, held = "the quick one is idle, and the slow one holds", lambda: stage.unacked("jobs")
            stage.really("Who is slow loses jobs to who is quick.", claim, stage.eventually(held, 5), 5)
