"""Queue properties: how long a queue lives, how much it holds, and what it gives up.

You will see each at work. A **durable** queue lives through a restart, an **exclusive** one goes with its connection,
an **auto-delete** one with its last consumer, `x-expires` after it was unused for so long. `x-message-ttl` is how long
a message may wait; its own `expiration` counts if it is lower. `x-max-length` and `x-max-length-bytes` are how much may
wait, `x-overflow` what goes when more comes. `x-dead-letter-exchange` takes what the queue gives up; the header
`x-death` says why. `x-queue-type`: classic, on one node; quorum, a replicated log on disk, always durable and shared.
"""

from __future__ import annotations

from contextlib import suppress

from amqp.exceptions import AMQPError, MessageNacked
from kombu import Exchange, Producer, Queue

from lessons.stage import Stage

TRY = """
1. `flixtrail lesson queues --set limit=x-length-bytes`: which proof fails? Why did nobody object before?
2. Let (dead) lead back to [line], and look at the `x-death` of `short` some seconds later. What does it count?
3. Declare [line] a second time, with an `x-expires`. What does the broker say? How would a policy do it?
"""
#: A setting, and a value of it with which something cannot be proved.
BREAKS = ("limit", "x-length-bytes")
DEAD, QUORUM = {"x-dead-letter-exchange": "dead"}, {"x-queue-type": "quorum"}


def play(stage: Stage, *, limit: str = "x-max-length-bytes") -> None:
    owner, channel = stage.connect("owner"), stage.connect(transport_options={"confirm_publish": True}).channel()
    producer = Producer(channel)
    Queue("dead", Exchange("dead", "fanout"), channel=channel).declare()

    stage.say("[mine] is exclusive. A queue without a name is auto-delete. [brief] may lie unused for 0.5 s.")
    Queue("mine", exclusive=True, channel=owner.channel()).declare()
    stage.prove("another connection may not use [mine]: error", refused(stage, "mine", exclusive=True), 405)
    name = Queue("", auto_delete=True, channel=channel).declare()
    stage.prove("the broker made up a name that begins with", name[:8], "amq.gen-")
    stage.really("Auto-delete: no consumer, no queue.", "it never had one, is there, and has", stage.ready(name), 0)
    channel.basic_cancel(channel.basic_consume(name))
    owner.release()
    Queue("brief", queue_arguments={"x-expires": 500, **DEAD}, channel=channel).declare()
    producer.publish("hello", routing_key="brief")
    left = stage.eventually(lambda: [one["name"] for one in stage.management.get("queues", stage.vhost)], ["dead"])
    stage.prove("consumer and connection went, and 0.5 s. Queues that are left", left, ["dead"])
    stage.really("`x-expires` is for messages.", "[brief] went with its message; in [dead]", stage.ready("dead"), 0)

    stage.say("Five queues get a, b and c. Three have room for two messages, two for two bytes. What do they give up?")
    for name, arguments, expected in (
        ("drop-head", {"x-max-length": 2}, ["bc", "abc", "a"]),
        ("reject", {"x-max-length": 2, "x-overflow": "reject-publish"}, ["ab", "ab", ""]),
        ("reject-dlx", {"x-max-length": 2, "x-overflow": "reject-publish-dlx"}, ["ab", "ab", "c"]),
        ("bytes", {limit: 2}, ["bc", "abc", "a"]),
        ("typo", {"x-length-bytes": 2}, ["abc", "abc", ""]),
    ):
        Queue(name, queue_arguments={**arguments, **DEAD}, channel=channel).declare()
        confirmed = ""
        for body in "abc":
            with suppress(MessageNacked):
                producer.publish(body, routing_key=name)
                confirmed += body
        stage.eventually(lambda: stage.ready("dead"), len(expected[2]), within_s=3)
        seen = ["".join(stage.drain(channel, name)), confirmed, "".join(stage.drain(channel, "dead"))]
        stage.prove(f"[{name}], {arguments}: has, confirmed, gave up", seen, expected)
    stage.really("`x-length-bytes` limits.", "nothing is limited, and nobody says so", seen, ["abc", "abc", ""])

    stage.say("[line] gets `long`, which may wait for 60 s, and `short`, for 0.1 s; [a] and [b] get a message each.")
    waits = (("line", 90, "long", 60), ("line", 90, "short", 0.1), ("a", 90, "expiration", 0.4), ("b", 0.4, "TTL", 90))
    for name, ttl, body, expiration in waits:
        Queue(name, message_ttl=ttl, queue_arguments=DEAD, channel=channel).declare()
        producer.publish(body, routing_key=name, expiration=expiration)
    stage.eventually(lambda: stage.ready("dead"), 2)
    stage.prove("90 s and 0.4 s: the lower counts. Dead", sorted(stage.drain(channel, "dead")), ["TTL", "expiration"])
    stage.really("Expired is gone.", "`short` expired behind `long`, and waits. [line] has", stage.ready("line"), 2)
    channel.basic_get("line", no_ack=True)
    stage.moves("short", "[line]", "(dead)", "[dead]")
    stage.prove("`long` was taken. Now [dead] has", stage.eventually(lambda: stage.ready("dead"), 1), 1)
    death = channel.basic_get("dead", no_ack=True).headers["x-death"][0]
    stage.prove("its x-death says", [death["reason"], death["queue"], death["count"]], ["expired", "line", 1])

    stage.say("Some queues are refused (by RabbitMQ 4 perhaps [passing]). Two get a transient message; then a restart.")
    stage.prove("an `x-max-priority` above 255: error", refused(stage, "sorts", max_priority=256), 406)
    stage.prove("an exclusive quorum queue: error", refused(stage, "log", exclusive=True, queue_arguments=QUORUM), 406)
    if stage.version < (4, 0):  # deprecated since: whether it is taken is then a matter of the broker's settings
        stage.prove("[passing], neither durable nor exclusive: error", refused(stage, "passing", durable=False), None)
    for name, kind in (("classic", None), ("quorum", QUORUM)):
        Queue(name, queue_arguments=kind, channel=channel).declare()
        producer.publish("hello", routing_key=name, delivery_mode="transient")
    stage.restart()
    left = stage.eventually(lambda: list(map(stage.ready, ("classic", "quorum", "passing"))), [0, 1, None])
    stage.prove("after it, [classic] and [quorum] have; [passing] is gone", left, [0, 1, None])


def refused(stage: Stage, name: str, **options: object) -> int | None:
    try:
        Queue(name, channel=stage.connect("another").channel(), **options).declare()
    except AMQPError as error:
        return int(error.reply_code)
    return None
