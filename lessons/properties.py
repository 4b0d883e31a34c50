"""Message properties: what travels beside the payload, and who looks at it.

Most properties are a word from publisher to consumer: the broker does not look. It acts on expiration, delivery mode,
priority, and on headers where an exchange compares them. The routing key is no property: it goes with the publish.

You will see each of them, what queues make of a priority, a question and its answer (RPC) when the answer is late,
missing or wrong, and what a restart leaves. In RabbitMQ 4, quorum queues also sort: into two levels (4.3: into 32).
"""

from __future__ import annotations

from typing import Any

from amqp import Message
from kombu import Exchange, Producer, Queue

from lessons.stage import Stage

TRY = """
1. `flixtrail lesson properties --set compare=False`: the client takes any answer. Which ones does it get?
2. `flixtrail lesson properties --set delivery_mode=1`: which proof fails? Which queue does not mind?
3. Publish the questions with an `expiration`. What does a server that comes too late find? When is that right?
"""
#: A setting, and a value of it with which something cannot be proved.
BREAKS = ("compare", False)

#: As AMQP calls it, a value, and what it is.
PROPERTIES = (
    ("content_type", "application/json", "of the payload; the broker does not check it"),
    ("application_headers", {"trace": "t-1"}, "pairs of the publisher's own"),
    ("timestamp", 1_700_000_000, "seconds, by the publisher's clock"),
    ("expiration", "60000", "milliseconds, as text"),
    ("priority", 7, "0 to 255"),
    ("message_id", "view-1", "which message it is"),
    ("correlation_id", "question-1", "which question it answers"),
    ("reply_to", "answers", "the queue for its own answer"),
)


def play(stage: Stage, *, delivery_mode: int = 2, compare: bool = True) -> None:
    channel = stage.connect("lesson", transport_options={"confirm_publish": True}).channel()
    producer = Producer(channel, routing_key="views")

    stage.say("A message with all properties, published twice. The payload is no JSON, whatever its content type says.")
    Queue("views", channel=channel).declare()
    for _ in range(2):
        channel.basic_publish(Message("{no", **{name: value for name, value, _ in PROPERTIES}), routing_key="views")
    stage.moves("{no", "publisher", "()", "[views]", "consumer")
    one, two = (channel.basic_get("views", no_ack=True) for _ in range(2))
    for name, value, meaning in PROPERTIES:
        stage.prove(f"{name} ({meaning})", one.properties[name], value)
    stage.prove("payload and routing key", [one.body, one.delivery_info["routing_key"]], ["{no", "views"])
    stage.really("A message id comes only once.", "the second one came, too", two.properties["message_id"], "view-1")

    stage.say("A message that nobody takes within 0.2 s, its expiration.")
    producer.publish("short", expiration=0.2)
    stage.prove("there is none left", stage.eventually(lambda: stage.ready("views"), 0), 0)

    stage.say("Every queue gets messages with the priorities 0, 31 and 255, in this order. How do they come out?")
    most, ten, quorum = {"x-max-priority": 255}, {"x-max-priority": 10}, {"x-queue-type": "quorum"}
    for name, arguments in {"plain": {}, "most": most, "ten": ten, "quorum": quorum}.items():
        Queue(name, Exchange("all", "fanout"), queue_arguments=arguments, channel=channel).declare()
    for priority in (0, 31, 255):
        producer.publish(str(priority), exchange="all", priority=priority)
    stage.prove("[plain] does not sort", stage.drain(channel, "plain"), ["0", "31", "255"])
    stage.prove("[most], x-max-priority 255, sorts", stage.drain(channel, "most"), ["255", "31", "0"])
    stage.prove("[ten], x-max-priority 10: more counts as 10", stage.drain(channel, "ten"), ["31", "255", "0"])
    levels = ["31", "255", "0"] if stage.version >= (4, 0) else ["0", "31", "255"]
    stage.really("A priority is 0 to 255.", "not in [quorum]", stage.drain(channel, "quorum"), levels)
    ask_and_answer(stage, channel, compare=compare)

    stage.say("The same durable queues get a transient and a persistent message. Then the broker restarts.")
    producer.publish("transient", exchange="all", delivery_mode=1)
    producer.publish("persistent", exchange="all", delivery_mode=delivery_mode)
    stage.restart()
    channel = stage.connect("after the restart").channel()
    stage.really("A durable queue keeps its messages.", "[plain] kept", stage.drain(channel, "plain"), ["persistent"])
    stage.prove("[quorum] writes all to disk; it kept", stage.drain(channel, "quorum"), ["transient", "persistent"])


def ask_and_answer(stage: Stage, channel: Any, *, compare: bool) -> None:
    def answers(to: str) -> list[str]:
        """The client's part: it takes what has the correlation id of its question, and drops the rest."""
        come = iter(lambda: channel.basic_get("answers", no_ack=True), None)
        return [one.body for one in come if not compare or one.properties["correlation_id"] == to]

    stage.say("Three questions. The server of the first dies, that of the second is slow, that of the third answers.")
    Queue("questions", channel=channel).declare()
    Queue("answers", exclusive=True, channel=channel).declare()
    for number in ("1", "2", "3"):
        Producer(channel).publish("?", routing_key="questions", correlation_id=number, reply_to="answers")
    _, late, right = (channel.basic_get("questions", no_ack=True).properties for _ in range(3))
    come = stage.eventually(lambda: answers("1") + answers("2"), ["answer to 1", "answer to 2"], within_s=0.3)
    stage.prove("at the deadline, missing and late look the same: answers to 1 and 2", come, [])
    for asked in (late, {**late, "correlation_id": "9"}, right):
        number = asked["correlation_id"]
        Producer(channel).publish(f"answer to {number}", routing_key=asked["reply_to"], correlation_id=number)
    stage.moves("answer to 3", "server", "()", "[answers]", "client")
    stage.really("What comes next is my answer.", "late and wrong ones came first; mine", answers("3"), ["answer to 3"])
