"""Acknowledgement and redelivery: when the broker may forget a message.

A message that was delivered stays with the broker until its consumer has answered for it:

| the answer | the message |
| --- | --- |
| ack | is gone |
| reject, nack | is gone (or dead-lettered, where the queue has an exchange for that) |
| reject or nack, with requeue | goes back to its old place, and is delivered again |
| none, and the channel ends | the same; so it is when a worker is killed |

(An ack or a nack may be **multiple**: for a message and all before it on the channel that have no answer yet.)
What is delivered again is marked **redelivered**: somebody had it, and nobody knows how far they came. A worker that
acknowledges **early**, before the work, loses messages when it dies. One that acknowledges **late**, after it, may do
the same work twice; so the work must be **idempotent**: done twice is the same as done once.

You will see every answer, workers that are killed with -9, and what Celery makes of a child process that is killed.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import psutil
from amqp import spec
from kombu import Producer, Queue

from lessons.stage import Stage

TRY = """
1. `flixtrail lesson acknowledgement --set ack=early`: which proof fails, and where are the three jobs now?
2. Take a message and requeue it, in a loop, without a pause. How often a second? Who would end it?
3. Twice `channel.basic_ack(tag)` for one message: what does the broker say, and where are the others then?
"""
#: A setting, and a value of it with which something cannot be proved.
BREAKS = ("ack", "early")
JOBS = ["one", "two", "three"]


def play(stage: Stage, *, ack: str = "late") -> None:
    channel, short = (stage.connect(name).channel() for name in ("lesson", "consumer"))
    for name in ("work", "stored"):
        Queue(name, channel=channel).declare()

    def publish(bodies: list[str], queue: str = "work") -> None:
        for body in bodies:
            Producer(channel).publish(body, routing_key=queue)

    def take() -> dict[str, bool]:
        messages = iter(lambda: stage.get(channel, "work"), None)
        return {message.body: message.delivery_info["redelivered"] for message in messages}

    def kill_a_worker(ack: str) -> list[int | None]:
        """One that has taken the jobs, between work and answer: what is in [work] and in [stored] then."""
        publish(JOBS)
        worker: Any = stage.spawn("-m", "lessons.hands.acknowledgement", ack)
        worker.stdout.readline()
        worker.kill()
        stage.eventually(lambda: stage.consumers("work"), 0)  # all that it held comes back at the same moment
        return [stage.ready("work"), stage.ready("stored")]

    def fate(task: str) -> dict[str, int]:
        queue = stage.queue(task)
        stats = {"ack": 0, "redeliver": 0, **queue.get("message_stats", {})}
        return {"left": queue.get("messages", -1), "acked": stats["ack"], "redelivered": stats["redeliver"]}

    stage.say("Answers: a ack, b reject, c requeue, d and e one nack, f and g one ack, h none. Then the channel ends.")
    publish(list("abcdefgh"))
    stage.eventually(lambda: stage.ready("work"), 8)
    a, b, c, _, e, _, g, _ = (Queue("work", channel=short).get() for _ in range(8))
    a.ack()
    b.reject()
    c.requeue()
    short.send_method(spec.Basic.Nack, "Lbb", (e.delivery_tag, True, True))  # multiple, requeue
    g.ack(multiple=True)
    short.close()
    stage.moves("c, d, e, h", "[work]", "consumer", "[work]")
    stage.prove("what is left, and whether it is marked redelivered", take(), dict.fromkeys("cdeh", True))

    stage.say("A worker takes three jobs, acknowledges them early, and is killed (-9) before it has stored one.")
    stage.moves("one", "[work]", "worker (acks, and is killed)", "nowhere")
    stage.really("An ack is a commit.", "nobody has them; left in [work], and stored", kill_a_worker("early"), [0, 0])
    stage.say("The next one stores the first job, and is killed before its late ack. Then another does all three.")
    stage.prove("left in [work], and stored", kill_a_worker(ack), [3, 1])
    stage.moves("one", "[work]", "worker (killed)", "[work]", "another worker", "[stored]")
    stage.prove("all are marked, also the two with which nobody had begun", take(), dict.fromkeys(JOBS, True))
    publish(JOBS, "stored")
    rows = stage.drain(channel, "stored")
    stage.prove("stored; and where the job is a unique key", [rows, [*dict.fromkeys(rows)]], [["one", *JOBS], JOBS])

    stage.say("Celery, one worker: its four processes are killed. Each was at a task with other settings.")
    celery: Any = stage.spawn("-m", "lessons.hands.acknowledgement_celery")
    for child in [psutil.Process(int(celery.stdout.readline())) for _ in range(4)]:
        child.kill()
    for late, reject in ((False, False), (False, True), (True, False), (True, True)):
        task, back = f"acks_late={late} reject_on_worker_lost={reject}", int(late and reject)
        expected = {"left": back, "acked": 1 - back, "redelivered": back}
        stage.prove(task, stage.eventually(partial(fate, task), expected), expected)
