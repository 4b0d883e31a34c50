"""Poison messages: a message that kills every worker that processes it.

A message is delivered again if its consumer requeues it, or dies with it: at once, to the next consumer, without end. A
**quorum queue** counts this (header `x-delivery-count`). It gives up a message that came back more often than its
**delivery limit** (`x-delivery-limit`) allows. Through the **dead-letter exchange** the message goes to a **dead-letter
queue**, with the reason `delivery_limit` in its header `x-death`. Without a dead-letter exchange it is lost.

| how it comes back | does that count? |
| --- | --- |
| the consumer rejects it with requeue (`basic.reject`) | yes |
| the consumer's connection is lost | yes, for every message that the consumer had |
| `basic.nack` with requeue | up to RabbitMQ 4.2 |
| any of these, in a classic queue | no |

A quorum queue without its own limit has none up to RabbitMQ 3.13, and a limit of 20 from 4.0 on. You will see the
endless loop, the limit that ends it, nine harmless messages that are given up together with a killer, and the
**redrive** that brings them back.
"""

from __future__ import annotations

from typing import Any

from kombu import Producer, Queue

from lessons.harness.stage import Stage

TRY = """
1. `.venv/bin/flixtrail lesson poison --set prefetch=1`: which proof fails, why is that good news, and what does it
   cost?
2. `.venv/bin/flixtrail lesson poison --set dead_letters=false`: where is the message after its last delivery?
3. How would you tell the harmless messages from the killer? Flixtrail tries each of them alone, in its queue
   `history.alone`.
"""
BREAKS = ("dead_letters", False)
WHY = {
    "dead_letters": "Without a dead-letter exchange, RabbitMQ drops a message that has reached its delivery limit.",
    "prefetch": "A worker that has only the killer takes no other message with it.",
}

#: The first one kills every worker that processes it. The others are harmless.
VIEWS = ["killer", *(f"view {number}" for number in range(1, 10))]
QUORUM = {"x-queue-type": "quorum"}


def play(stage: Stage, *, limit: int = 3, prefetch: int = 10, dead_letters: bool = True) -> None:
    channel = stage.connect("lesson", transport_options={"confirm_publish": True}).channel()
    producer, endless = Producer(channel), Queue("endless", channel=channel)

    stage.say("[endless] is a classic queue. A worker takes the first message and requeues it, a hundred times.")
    endless.declare()
    for body in VIEWS:
        producer.publish(body, routing_key="endless")
    stage.moves("killer", "[endless]", "worker", "[endless]", "worker", "[endless]")
    came = [take(endless, requeue=True) for _ in range(100)]
    stage.prove("The killer was delivered 100 times, and nothing counted it.", came.count(("killer", 0)), 100)
    stage.really(
        "A requeued message goes to the end of the queue.",
        "None of the 9 messages behind it was delivered.",
        len(set(came)) - 1,
        0,
    )

    stage.say(
        "[history] is a quorum queue with a delivery limit of {limit}. [dead] is its dead-letter queue.", limit=limit
    )
    dying = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"} if dead_letters else {}
    history = Queue("history", queue_arguments={**QUORUM, **dying, "x-delivery-limit": limit}, channel=channel)
    dead, unset = (Queue(name, queue_arguments=QUORUM, channel=channel) for name in ("dead", "unset"))
    for queue in (history, dead, unset):
        queue.declare()
    producer.publish("killer", routing_key="history")
    stage.moves("killer", "[history]", "worker", "[history]", "()", "[dead]")
    counts = [count for _, count in iter(lambda: take(history, requeue=True), None)]
    stage.really(
        "A delivery limit is the number of deliveries.",
        "With a limit of {limit}, the killer was delivered {deliveries} times.",
        counts,
        list(range(limit + 1)),
        limit=limit,
        deliveries=limit + 1,
    )
    stage.prove("The killer is in [dead].", stage.eventually(lambda: stage.ready("dead"), 1), 1)
    letter = dead.get(no_ack=True)
    death = letter.headers["x-death"][0] if letter else {}
    why = (death.get("reason"), death.get("queue"))
    stage.prove("Its header `x-death` says why: `delivery_limit`, in `history`.", why, ("delivery_limit", "history"))
    if stage.version >= (4, 0):
        producer.publish("killer", routing_key="unset")
        deliveries = len(list(iter(lambda: take(unset, requeue=True), None)))
        stage.prove("With the default limit of RabbitMQ 4, it is dropped after 21 deliveries.", deliveries, 21)

    stage.say("Now each worker has {prefetch} messages. It begins with the killer, and dies of it.", prefetch=prefetch)
    for body in VIEWS:
        producer.publish(body, routing_key="history")
    workers = (stage.spawn("-m", "lessons.programs.poison", "history", str(prefetch)) for _ in range(limit + 1))
    deaths = [stage.eventually(worker.poll, -9, within_s=10) for worker in workers]
    stage.prove("{workers} workers died, one after another.", deaths, [-9] * (limit + 1), workers=limit + 1)
    dead_now = stage.eventually(lambda: stage.ready("dead"), len(VIEWS))
    stage.really(
        "RabbitMQ only counts the message that killed the worker.",
        "It counted all messages that the worker had: all 10 are in [dead].",
        dead_now,
        len(VIEWS),
    )

    stage.say(
        "The worker is repaired. A redrive publishes each dead letter again, waits for the confirm, and only then "
        "acknowledges the dead letter."
    )
    stage.moves("all ten", "[dead]", "redrive", "()", "[history]", "worker")
    while (letter := dead.get()) is not None:
        # If it crashes between these two lines, the message is in both queues. The lesson exactly_once handles that.
        producer.publish(letter.payload, routing_key="history")
        letter.ack()
    # Without the old headers: from 4.3 on, the count continues for messages that the broker itself moves.
    again = list(iter(lambda: take(history, requeue=False), None))
    stage.prove("The repaired worker got all 10 messages.", sorted(body for body, _ in again), sorted(VIEWS))
    stage.prove("RabbitMQ counts their deliveries from 0 again.", {count for _, count in again}, {0})
    stage.prove("[dead] is empty.", stage.eventually(lambda: stage.ready("dead"), 0), 0)


def take(queue: Any, *, requeue: bool) -> tuple[str, int] | None:
    """Return the next message, and how often it came back by the broker's count. None: the queue is empty."""
    if (message := queue.get()) is None:
        return None
    message.requeue() if requeue else message.ack()
    return message.payload, message.headers.get("x-delivery-count", 0)
