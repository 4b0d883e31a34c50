"""Queue properties: how long a queue lives.

A queue's properties are set when it is declared, and do not change afterwards.

| the queue | is deleted |
| --- | --- |
| **durable** | not by a restart of the broker |
| **exclusive** | when its connection closes; no other connection may use it |
| **auto-delete** | when its last consumer leaves |
| `x-expires` | when it was not used for so many milliseconds |

`x-queue-type` is the kind of queue. **classic** is on one node. **quorum** is a replicated log on disk: it is always
durable and never exclusive.

You will see each of them, declarations that the broker refuses, and what is there after a restart.
"""

from __future__ import annotations

from amqp.exceptions import AMQPError
from kombu import Exchange, Producer, Queue

from lessons.harness.stage import Stage

TRY = """
1. `.venv/bin/flixtrail lesson queues --set auto_delete=true`: which proof fails? When does this queue disappear?
2. Declare [history] a second time, with an `x-expires`. What does the broker answer? How would a policy do it?
3. Declare an exclusive queue, and let the connection close. What happens to its messages?
"""
BREAKS = ("auto_delete", True)
WHY = {"auto_delete": "RabbitMQ deletes an auto-delete queue when its last consumer leaves."}
DEAD, QUORUM = {"x-dead-letter-exchange": "dead"}, {"x-queue-type": "quorum"}


def play(stage: Stage, *, auto_delete: bool = False) -> None:
    owner, channel = stage.connect("owner"), stage.connect(transport_options={"confirm_publish": True}).channel()
    producer = Producer(channel)

    stage.say("[history] has a consumer that leaves.")
    Queue("history", auto_delete=auto_delete, channel=channel).declare()
    channel.basic_cancel(channel.basic_consume("history"))
    stage.prove("[history] is still there, and empty.", stage.ready("history"), 0)

    stage.say("[mine] is exclusive. It belongs to the connection that declared it.")
    Queue("mine", exclusive=True, channel=owner.channel()).declare()
    stage.prove("The broker refuses it to another connection, with 405.", refused(stage, "mine", exclusive=True), 405)
    owner.release()
    stage.prove("[mine] went with its connection.", stage.eventually(lambda: stage.ready("mine"), None), None)

    stage.say("A queue is declared without a name, as auto-delete.")
    name = Queue("", auto_delete=True, channel=channel).declare()
    stage.prove("The broker made up a name that begins with `amq.gen-`.", name[:8], "amq.gen-")
    stage.really(
        "An auto-delete queue needs a consumer to exist.",
        "It never had a consumer, and is still there.",
        stage.ready(name),
        0,
    )
    channel.basic_cancel(channel.basic_consume(name))
    stage.prove(
        "It is gone, because its last consumer has left.", stage.eventually(lambda: stage.ready(name), None), None
    )

    stage.say("[brief] has an `x-expires` of 500 milliseconds, and a message. Nobody uses it.")
    Queue("dead", Exchange("dead", "fanout"), channel=channel).declare()
    Queue("brief", queue_arguments={"x-expires": 500, **DEAD}, channel=channel).declare()
    producer.publish("hello", routing_key="brief")
    stage.moves("hello", "publisher", "()", "[brief]")
    gone = stage.eventually(lambda: stage.has_queue("brief"), expected=False)  # counting its messages would use it
    stage.prove("[brief] is gone after 500 ms.", gone, expected=False)
    stage.really(
        "The messages of an expired queue are dead-lettered.",
        "The message went with [brief]: [dead] is empty.",
        stage.ready("dead"),
        0,
    )

    stage.say("The broker refuses some declarations.")
    stage.prove("An `x-max-priority` above 255 is refused with 406.", refused(stage, "sorts", max_priority=256), 406)
    code = refused(stage, "log", exclusive=True, queue_arguments=QUORUM)
    stage.prove("An exclusive quorum queue is refused with 406.", code, 406)

    old = stage.version < (4, 0)  # later versions may refuse a queue that is neither durable nor exclusive
    if old:
        code = refused(stage, "passing", durable=False)
        stage.prove("The broker accepts [passing], which is neither durable nor exclusive.", code, None)
    stage.say("[classic] and [quorum] are durable, and get a transient message. Then the broker restarts.")
    for name, kind in (("classic", None), ("quorum", QUORUM)):
        Queue(name, queue_arguments=kind, channel=channel).declare()
        producer.publish("hello", routing_key=name, delivery_mode="transient")
    stage.restart()
    if old:
        left = stage.eventually(lambda: stage.ready("passing"), None)
        stage.prove("[passing] does not exist any more.", left, None)
    left = stage.eventually(lambda: stage.ready("classic"), 0)
    stage.prove("[classic] is there, and has lost the transient message.", left, 0)
    left = stage.eventually(lambda: stage.ready("quorum"), 1)
    stage.prove("[quorum] is there, and has kept the message.", left, 1)


def refused(stage: Stage, name: str, **options: object) -> int | None:
    """Return the code with which the broker refuses to declare it on another connection."""
    try:
        Queue(name, channel=stage.connect("another").channel(), **options).declare()
    except AMQPError as error:
        return int(error.reply_code)
    return None
