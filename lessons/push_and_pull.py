"""Push and pull: who asks, and what each question costs.

There are two ways to get messages from a queue. **Pull** is `basic.get`: the client asks, and waits for one message or
for the answer that there is none. **Push** is `basic.consume`: the client subscribes once, and from then on the broker
sends it each message as soon as there is one. The consumer does not poll.

| | pull | push |
| --- | --- | --- |
| questions for 50 messages | 50, and a wait for each | 1 |
| questions while nothing comes | one for each look | none |
| who sets the pace | the client | the broker, up to the **prefetch** |

The prefetch is the number of messages that a consumer may have unacknowledged. Without a prefetch, the broker deals out
all messages to the consumers in turn, also to a consumer that is stuck.

You will see how many questions the broker counts, how many bytes a consumer sends while messages come, and how ten
tasks are divided between a slow and a fast consumer.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from kombu import Connection, Consumer, Message, Producer, Queue

from lessons.harness.stage import Stage

TRY = """
1. `.venv/bin/flixtrail lesson push_and_pull --set no_ack=false`: the consumer acknowledges each message now. What does
   it send?
2. `.venv/bin/flixtrail lesson push_and_pull --set prefetch=3`: how many tasks are stuck with the slow consumer?
3. Flixtrail pulls from one of its queues, every two seconds (`history.alone`). Why does it not subscribe?
"""
BREAKS = ("prefetch", 0)
WHY = {
    "prefetch": "With a prefetch above 1, or with none (0), the slow consumer gets tasks before it has finished one.",
    "no_ack": "A consumer that acknowledges sends bytes for each message.",
}


def subscribe(connection: Connection, queue: str, *, ack: bool, **options: Any) -> list[Message]:
    """Consume on a new channel. Return the list to which each message is added that comes."""
    came: list[Message] = []

    def on_message(message: Message) -> None:
        came.append(message)
        if ack:
            message.ack()

    Consumer(connection.channel(), Queue(queue), on_message=on_message, **options).consume()
    return came


def wait(connection: Connection, how_many: int, *came: list[Message]) -> list[int]:
    """Wait for so many messages, and return how many came to each consumer."""
    with suppress(TimeoutError):
        while sum(map(len, came)) < how_many:
            connection.drain_events(timeout=5)
    return [len(one) for one in came]


def play(stage: Stage, *, no_ack: bool = True, prefetch: int = 1) -> None:
    producer = Producer(stage.connect("publisher", transport_options={"confirm_publish": True}))
    asked = Queue("asked", channel=stage.connect("client").channel())
    asked.declare()

    stage.say("Pull: three view events wait. The client does not know how many there are, and asks five times.")
    for _ in range(3):
        producer.publish("view", routing_key="asked")
    stage.moves("view", "[asked]", "client")
    answers = [asked.get(no_ack=True) for _ in range(5)]
    stage.prove("Three answers brought a view event.", sum(answer is not None for answer in answers), 3)
    empty = stage.eventually(lambda: int((stage.queue("asked").get("message_stats") or {}).get("get_empty", 0)), 2)
    stage.prove("Two answers were empty. They cost a round trip, too, and the broker counted them.", empty, 2)

    def bytes_there(way: str) -> int:
        listed = stage.management.get("vhosts", stage.vhost, "connections")
        return sum(one.get(way, 0) for one in listed if one.get("user_provided_name") == "consumer")

    stage.say("Push: the client subscribes once. Then 50 view events come, and before and after them a big one.")
    consumer, big = stage.connect("consumer"), "x" * 10_000
    came = subscribe(consumer, "pushed", ack=not no_ack, no_ack=no_ack)
    producer.publish(big, routing_key="pushed")
    wait(consumer, 1, came)
    stage.eventually(lambda: bytes_there("send_oct") > len(big), expected=True)
    before = bytes_there("recv_oct")
    for body in (*["view"] * 50, big):
        producer.publish(body, routing_key="pushed")
    stage.moves("view", "publisher", "()", "[pushed]", "consumer")
    stage.prove("52 view events came.", wait(consumer, 52, came), [52])
    # The broker's figures are new when they contain the second big message.
    sent = stage.eventually(lambda: bytes_there("send_oct") > 2 * len(big), expected=True)
    stage.prove("By the broker's figures, it has sent both big ones to the consumer.", sent, expected=True)
    asked_for = bytes_there("recv_oct") - before
    stage.really("A consumer polls its queue.", "The consumer sent 0 bytes meanwhile.", asked_for, 0)

    stage.say("Ten tasks for a slow consumer, which never finishes one, and for a fast consumer.")
    shares = []
    for queue, most in (("unlimited", 0), ("limited", prefetch)):
        workers = stage.connect("workers")
        both = [subscribe(workers, queue, ack=ack, prefetch_count=most) for ack in (False, True)]
        for _ in range(10):
            producer.publish("task", routing_key=queue)
        shares.append(wait(workers, 10, *both))
    stage.really(
        "The next message goes to a consumer that is free.",
        "Without a prefetch, the slow one got 5 tasks and the fast one got 5.",
        shares[0],
        [5, 5],
    )
    stage.prove(
        "With a prefetch of {prefetch}, the slow one got 1 task and the fast one got 9.",
        shares[1],
        [1, 9],
        prefetch=prefetch,
    )
