"""Push and pull: who asks whom, and what each question costs.

There are two ways to get messages out of a queue. **Pull** is `basic.get`: the client asks, and waits for one message,
or for the answer that there is none. **Push** is `basic.consume`: the client subscribes once, and from then on the
broker sends it every message by itself, as soon as it is there.

| | pull | push |
| --- | --- | --- |
| questions for 50 messages | 50, and a wait for each | 1 |
| questions while nothing comes | one a look | none |
| who sets the pace | the client | the broker, up to the **prefetch** |

The prefetch says how many messages a consumer may hold unacknowledged. Without one the broker sends all that it has, to
each consumer in its turn, also to one that does not get on. You will see the broker's own count of questions, the
bytes that a consumer sends while messages come, and ten tasks dealt out to a slow and a fast consumer.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from kombu import Connection, Consumer, Message, Producer, Queue

from lessons.stage import Stage

TRY = """
1. `flixtrail lesson push_and_pull --set no_ack=false`: the consumer acknowledges each message now. What does it send?
2. `flixtrail lesson push_and_pull --set prefetch=3`: how many tasks are stuck with the slow consumer?
3. Flixtrail pulls from one of its queues, every two seconds (`history_worker/alone.py`). Why does it not subscribe?
"""
BREAKS = ("prefetch", 0)


def subscribe(connection: Connection, queue: str, *, ack: bool, **options: Any) -> list[Message]:
    """Consume, on a channel of its own: what comes stands in this list."""
    came: list[Message] = []

    def on_message(message: Message) -> None:
        came.append(message)
        if ack:
            message.ack()

    Consumer(connection.channel(), Queue(queue), on_message=on_message, **options).consume()
    return came


def wait(connection: Connection, how_many: int, *came: list[Message]) -> list[int]:
    """Let so many messages come in, without asking for them; how many came to each consumer."""
    with suppress(TimeoutError):
        while sum(map(len, came)) < how_many:
            connection.drain_events(timeout=5)
    return [len(one) for one in came]


def play(stage: Stage, *, no_ack: bool = True, prefetch: int = 1) -> None:
    producer = Producer(stage.connect("publisher", transport_options={"confirm_publish": True}))
    asked = Queue("asked", channel=stage.connect("client").channel())
    asked.declare()

    stage.say("Pull: three views wait, and the client asks five times, since it cannot know.")
    for _ in range(3):
        producer.publish("view", routing_key="asked")
    stage.moves("view", "[asked]", "client")
    answers = [asked.get(no_ack=True) for _ in range(5)]
    stage.prove("answers with a view", sum(answer is not None for answer in answers), 3)
    empty = stage.eventually(lambda: int((stage.queue("asked").get("message_stats") or {}).get("get_empty", 0)), 2)
    stage.prove("answers without one: they cost a round trip, too, and the broker counts them", empty, 2)

    def bytes_there(way: str) -> int:
        listed = stage.management.get("vhosts", stage.vhost, "connections")
        return sum(one.get(way, 0) for one in listed if one.get("user_provided_name") == "consumer")

    stage.say("Push: the client subscribes once. A big view comes first and last, to be seen in the broker's figures.")
    consumer, big = stage.connect("consumer"), "x" * 10_000
    came = subscribe(consumer, "pushed", ack=not no_ack, no_ack=no_ack)
    producer.publish(big, routing_key="pushed")
    wait(consumer, 1, came)
    stage.eventually(lambda: bytes_there("send_oct") > len(big), expected=True)
    before = bytes_there("recv_oct")
    for body in (*["view"] * 50, big):
        producer.publish(body, routing_key="pushed")
    stage.moves("view", "publisher", "()", "[pushed]", "consumer")
    stage.prove("views that came", wait(consumer, 52, came), [52])
    sent = stage.eventually(lambda: bytes_there("send_oct") > 2 * len(big), expected=True)
    stage.prove("the broker has sent both big ones", sent, expected=True)
    stage.really("A consumer polls its queue.", "bytes it sent meanwhile", bytes_there("recv_oct") - before, 0)

    stage.say("Prefetch: ten tasks for a consumer that does not get on, and one that is done with each at once.")
    shares = []
    for queue, most in (("unlimited", 0), ("limited", prefetch)):
        workers = stage.connect("workers")
        both = [subscribe(workers, queue, ack=ack, prefetch_count=most) for ack in (False, True)]
        for _ in range(10):
            producer.publish("task", routing_key=queue)
        shares.append(wait(workers, 10, *both))
    stage.really("The next message goes to whoever is free.", "without prefetch, slow and fast got", shares[0], [5, 5])
    stage.prove(f"with a prefetch of {prefetch}, slow and fast got", shares[1], [1, 9])
