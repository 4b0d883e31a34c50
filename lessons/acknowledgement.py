"""Acknowledgement and redelivery: when the broker may forget a message.

A delivered message stays with the broker until its consumer has answered:

| the answer | the message |
| --- | --- |
| ack | is gone |
| reject, nack | is gone, or dead-lettered if the queue has a dead-letter exchange |
| reject or nack, with requeue | goes back to its old place, and is delivered again |
| none, and the channel closes | the same; this also happens when a worker is killed |

An answer names the message by its **delivery tag**. An ack or nack can be **multiple**: then it is for this message and
for all earlier ones on the channel that have no answer yet.

A message that is delivered again is marked as **redelivered**: a consumer had it, and nobody knows how far it came. A
worker that acknowledges **early**, before the work, loses messages when it dies. A worker that acknowledges **late**,
after the work, may do the same work twice. So the work must be **idempotent**: twice has the same result as once.

You will see every answer, workers that are killed with -9, and what Celery does when a child process is killed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import psutil
from amqp import spec
from kombu import Producer, Queue

from lessons.harness.stage import Stage

TRY = """
1. `.venv/bin/flixtrail lesson acknowledgement --set ack=early`: which proof fails, and where are the three jobs now?
2. Take a message and requeue it, in a loop without a pause. How often does it come per second? What would end it?
3. Call `channel.basic_ack(tag)` twice for one message. What does the broker answer, and where are the other messages?
"""
BREAKS = ("ack", "early")
WHY = {"ack": "The worker acknowledged all three jobs before it worked, so RabbitMQ has forgotten them."}
JOBS = ["one", "two", "three"]


def play(stage: Stage, *, ack: str = "late") -> None:
    channel, short = (stage.connect(name).channel() for name in ("lesson", "consumer"))
    for name in ("work", "stored"):
        Queue(name, channel=channel).declare()

    def publish(bodies: list[str], queue: str = "work") -> None:
        for body in bodies:
            Producer(channel).publish(body, routing_key=queue)

    def take() -> dict[str, bool]:
        """Take all messages of [work]: which are there, and which are marked as redelivered."""
        messages = iter(lambda: channel.basic_get("work", no_ack=True), None)
        return {message.body: message.delivery_info["redelivered"] for message in messages}

    def kill_a_worker(ack: str) -> list[int | None]:
        """Kill a worker between work and ack. Return how many jobs are in [work] and in [stored] then."""
        publish(JOBS)
        worker: Any = stage.spawn("-m", "lessons.programs.acknowledgement", ack)
        worker.stdout.readline()
        worker.kill()
        stage.eventually(lambda: stage.consumers("work"), 0)  # its messages come back at the same moment
        return [stage.ready("work"), stage.ready("stored")]

    def fate(task: str) -> dict[str, int]:
        queue = stage.queue(task)
        stats = {"ack": 0, "redeliver": 0, **queue.get("message_stats", {})}
        return {"left": queue.get("messages", -1), "acked": stats["ack"], "redelivered": stats["redeliver"]}

    stage.say(
        "Eight messages, a to h. The consumer acks a, rejects b and requeues c. One nack with requeue is for d and e, "
        "one ack is for f and g. h gets no answer. Then the channel closes."
    )
    publish(list("abcdefgh"))
    stage.eventually(lambda: stage.ready("work"), 8)
    a, b, c, _, e, _, g, _ = (Queue("work", channel=short).get() for _ in range(8))
    a.ack()
    b.reject()
    c.requeue()
    short.send_method(spec.Basic.Nack, "Lbb", (e.delivery_tag, True, True))  # multiple, requeue
    g.ack(multiple=True)
    short.close()
    stage.eventually(lambda: stage.ready("work"), 4)
    stage.moves("c, d, e, h", "[work]", "consumer", "[work]")
    left = take()
    stage.prove("c, d, e and h are in [work] again, marked as redelivered.", left, dict.fromkeys("cdeh", True))

    stage.say("A worker takes three jobs, acknowledges them early, and is killed before it has stored one.")
    stage.moves("one", "[work]", "worker (acks, and is killed)", "nowhere")
    seen = kill_a_worker("early")
    stage.really(
        "An ack means that the work is done.",
        "No job is in [work], and none is stored: all three are lost.",
        seen,
        [0, 0],
    )
    stage.say("The next worker stores the first job, and is killed before its late ack.")
    seen = kill_a_worker(ack)
    stage.prove("All three jobs are in [work] again. One of them is already stored.", seen, [3, 1])
    stage.moves("one", "[work]", "worker (killed)", "[work]", "another worker", "[stored]")
    marked = take()
    stage.prove(
        "All three are marked as redelivered, although the worker had begun only one.",
        marked,
        dict.fromkeys(JOBS, True),
    )
    publish(JOBS, "stored")
    rows = stage.drain(channel, "stored")
    stage.prove("Another worker did all three, so job one is stored twice: 4 rows.", rows, ["one", *JOBS])
    stage.prove("Where the job is a unique key, there are 3 rows.", [*dict.fromkeys(rows)], JOBS)

    stage.say("A Celery worker has four processes. Each works on a task with other settings, and all four are killed.")
    celery: Any = stage.spawn("-m", "lessons.programs.acknowledgement_celery")
    for child in [psutil.Process(int(celery.stdout.readline())) for _ in range(4)]:
        child.kill()
    kept, lost = {"left": 1, "acked": 0, "redelivered": 1}, {"left": 0, "acked": 1, "redelivered": 0}

    def after_the_kill(expected: dict[str, int], *, late: bool, reject: bool) -> dict[str, int]:
        task = f"acks_late={late} reject_on_worker_lost={reject}"
        return stage.eventually(partial(fate, task), expected)

    seen_task = after_the_kill(lost, late=False, reject=False)
    stage.prove("With neither setting, the task was acknowledged, and is lost.", seen_task, lost)
    seen_task = after_the_kill(lost, late=False, reject=True)
    stage.prove("With `reject_on_worker_lost` alone, the task was acknowledged, and is lost.", seen_task, lost)
    seen_task = after_the_kill(lost, late=True, reject=False)
    stage.prove("With `acks_late` alone, the task was acknowledged, and is lost.", seen_task, lost)
    seen_task = after_the_kill(kept, late=True, reject=True)
    stage.prove("With both settings, the task is back in its queue.", seen_task, kept)
