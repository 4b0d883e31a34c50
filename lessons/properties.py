"""Message properties: what travels beside the payload, and who reads it.

Most properties are for the consumer, and the broker does not read them. The broker reads the expiration, the delivery
mode, the priority, and the headers if an exchange compares them. The routing key is no property: it belongs to the
publish.

`reply_to` says where the answer belongs. Publisher and consumer agree on what its text means: it names a **queue** (the
usual case) or an **exchange**, if several programs want the answer.

You will see each property, what queues do with a priority, a question and its answer (RPC) when the answer is late,
missing or wrong, an answer through an exchange, and what a restart leaves. In RabbitMQ 4, quorum queues also sort by
priority: two levels (from 4.3 on: 32).
"""

from __future__ import annotations

from typing import Any

from amqp import Message
from kombu import Exchange, Producer, Queue

from lessons.harness.stage import Stage

TRY = """
1. `.venv/bin/flixtrail lesson properties --set compare=False`: the client takes any answer. Which ones does it get?
2. `.venv/bin/flixtrail lesson properties --set delivery_mode=1`: which proof fails? Which queue keeps the message
   anyway?
3. Publish the questions with an `expiration`. What does a server find that comes too late? When is that right?
"""
BREAKS = ("compare", False)
WHY = {
    "compare": "A client that does not compare correlation ids takes answers to other questions for its own.",
    "delivery_mode": "A classic queue forgets a message with delivery mode 1 when the broker restarts.",
}

PROPERTIES: dict[str, Any] = {
    "content_type": "application/json",
    "application_headers": {"trace": "t-1"},
    "timestamp": 1_700_000_000,
    "expiration": "60000",
    "priority": 7,
    "message_id": "view-1",
    "correlation_id": "question-1",
    "reply_to": "answers",
}


def play(stage: Stage, *, delivery_mode: int = 2, compare: bool = True) -> None:
    channel = stage.connect("lesson", transport_options={"confirm_publish": True}).channel()
    producer = Producer(channel, routing_key="views")

    stage.say("A message with all properties is published twice. Its payload is `{no`, which is no valid JSON.")
    Queue("views", channel=channel).declare()
    for _ in range(2):
        channel.basic_publish(Message("{no", **PROPERTIES), routing_key="views")
    stage.moves("{no", "publisher", "()", "[views]", "consumer")
    one, two = (channel.basic_get("views", no_ack=True) for _ in range(2))
    got = one.properties
    stage.prove("The payload arrived as it was: the broker does not look at it.", one.body, "{no")
    stage.prove(
        "The content type says `application/json`: the broker does not check it.",
        got["content_type"],
        "application/json",
    )
    stage.prove("The headers have the publisher's own pair, trace: t-1.", got["application_headers"], {"trace": "t-1"})
    stage.prove("The timestamp is in seconds, by the publisher's clock.", got["timestamp"], 1_700_000_000)
    stage.prove("The expiration is in milliseconds, as text: `60000`.", got["expiration"], "60000")
    stage.prove("The priority is 7. It can be 0 to 255.", got["priority"], 7)
    stage.prove("The message id `view-1` says which message it is.", got["message_id"], "view-1")
    stage.prove("The correlation id `question-1` says which question it answers.", got["correlation_id"], "question-1")
    stage.prove("`reply_to` says where the answer belongs: `answers`.", got["reply_to"], "answers")
    stage.prove("The routing key came with the delivery: `views`.", one.delivery_info["routing_key"], "views")
    stage.really(
        "RabbitMQ delivers a message id only once.",
        "The second message with the id `view-1` came, too.",
        two.properties["message_id"],
        "view-1",
    )

    stage.say("A message has an expiration of 0.2 seconds, and nobody takes it in time.")
    producer.publish("short", expiration=0.2)
    stage.prove("It is gone: [views] is empty.", stage.eventually(lambda: stage.ready("views"), 0), 0)

    stage.say("Four queues get messages with the priorities 0, 31 and 255, in this order.")
    most, ten, quorum = {"x-max-priority": 255}, {"x-max-priority": 10}, {"x-queue-type": "quorum"}
    for name, arguments in {"plain": {}, "most": most, "ten": ten, "quorum": quorum}.items():
        Queue(name, Exchange("all", "fanout"), queue_arguments=arguments, channel=channel).declare()
    for priority in (0, 31, 255):
        producer.publish(str(priority), exchange="all", priority=priority)
    order = stage.drain(channel, "plain")
    stage.prove("[plain] does not sort: 0, 31, 255.", order, ["0", "31", "255"])
    order = stage.drain(channel, "most")
    stage.prove("[most] has `x-max-priority` 255, and sorts: 255, 31, 0.", order, ["255", "31", "0"])
    order = stage.drain(channel, "ten")
    stage.prove("[ten] has `x-max-priority` 10, so 31 and 255 count as 10: 31, 255, 0.", order, ["31", "255", "0"])
    order, myth = stage.drain(channel, "quorum"), "Every queue sorts by priority."
    if stage.version >= (4, 0):
        stage.really(myth, "[quorum] puts the high ones first, in their order: 31, 255, 0.", order, ["31", "255", "0"])
    else:
        stage.really(myth, "[quorum] does not sort: 0, 31, 255.", order, ["0", "31", "255"])
    ask_and_answer(stage, channel, compare=compare)
    answer_through_an_exchange(stage, channel)

    stage.say("The same durable queues get a transient and a persistent message. Then the broker restarts.")
    producer.publish("transient", exchange="all", delivery_mode=1)
    producer.publish("persistent", exchange="all", delivery_mode=delivery_mode)
    stage.restart()
    channel = stage.connect("after the restart").channel()
    left = stage.drain(channel, "plain")
    stage.really(
        "A durable queue keeps its messages.",
        "[plain], a classic queue, kept only the persistent message.",
        left,
        ["persistent"],
    )
    left = stage.drain(channel, "quorum")
    stage.prove("[quorum] kept both: a quorum queue writes all messages to disk.", left, ["transient", "persistent"])


def ask_and_answer(stage: Stage, channel: Any, *, compare: bool) -> None:
    def answers(to: str) -> list[str]:
        """The client's part: take what has the correlation id of the question, and drop the rest."""
        come = iter(lambda: channel.basic_get("answers", no_ack=True), None)
        return [one.body for one in come if not compare or one.properties["correlation_id"] == to]

    stage.say("A client asks three questions. The first server dies, the second is slow, the third answers.")
    Queue("questions", channel=channel).declare()
    Queue("answers", exclusive=True, channel=channel).declare()
    for number in ("1", "2", "3"):
        Producer(channel).publish("?", routing_key="questions", correlation_id=number, reply_to="answers")
    _, late, right = (channel.basic_get("questions", no_ack=True).properties for _ in range(3))
    come = stage.eventually(lambda: answers("1") + answers("2"), ["answer to 1", "answer to 2"], within_s=0.3)
    stage.prove("At the deadline the client has no answer to 1 and 2. Missing and late look the same.", come, [])
    for asked in (late, {**late, "correlation_id": "9"}, right):
        number = asked["correlation_id"]
        Producer(channel).publish(f"answer to {number}", routing_key=asked["reply_to"], correlation_id=number)
    stage.moves("answer to 3", "server", "()", "[answers]", "client")
    come = answers("3")
    stage.really(
        "The next answer that comes is mine.",
        "The late and a wrong answer came first. Only the correlation id finds the answer to 3.",
        come,
        ["answer to 3"],
    )


def answer_through_an_exchange(stage: Stage, channel: Any) -> None:
    stage.say("Now `reply_to` names the exchange (replies): the client and an audit log want the answer.")
    replies = Exchange("replies", "fanout")
    for name in ("client", "audit"):
        Queue(name, replies, channel=channel).declare()
    Producer(channel).publish("?", routing_key="questions", correlation_id="4", reply_to="replies")
    asked = channel.basic_get("questions", no_ack=True).properties
    Producer(channel).publish("answer to 4", exchange=asked["reply_to"], correlation_id=asked["correlation_id"])
    stage.moves("answer to 4", "server", "(replies)", "[client] [audit]")
    have = [stage.drain(channel, name) for name in ("client", "audit")]
    stage.prove("[client] and [audit] have the answer.", have, [["answer to 4"], ["answer to 4"]])
