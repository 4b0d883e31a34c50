"""Poison: the message that kills whoever works on it.

What a consumer gives back, or dies with, is delivered again: at once, to the next one, for ever. A **quorum queue**
counts that (header `x-delivery-count`) and gives up a message that came back more often than its **delivery limit**
(`x-delivery-limit`) allows. Through the **dead-letter exchange** it then goes to a **dead-letter queue**, with the
reason `delivery_limit` in its header `x-death`. Without a dead-letter exchange it is gone.

| how it comes back | does that count? |
| --- | --- |
| the consumer rejects it with requeue (`basic.reject`) | yes |
| the consumer's connection is lost | yes, for everything that the consumer held |
| `basic.nack` with requeue | up to RabbitMQ 4.2 |
| any of these, in a classic queue | no |

A quorum queue without a limit of its own has none up to RabbitMQ 3.13, and one of 20 from 4.0 on. You will see the
endless loop, the limit that ends it, nine innocents that die with a killer, and the **redrive** that brings them back.
"""

from __future__ import annotations

from typing import Any

from kombu import Producer, Queue

from lessons.stage import Stage

TRY = """
1. `flixtrail lesson poison --set prefetch=1`: which proof fails, why is that good news, and what does it cost?
2. `flixtrail lesson poison --set dead_letters=false`: where is the message after its last delivery?
3. How would you tell the innocents from the killer? Flixtrail's answer: `history_worker/alone.py`.
"""
#: A setting, and a value of it with which something cannot be proved.
BREAKS = ("dead_letters", False)

#: The first one kills every worker that works on it. The others harm nobody.
VIEWS = ["killer", *(f"view {number}" for number in range(1, 10))]
QUORUM = {"x-queue-type": "quorum"}


def play(stage: Stage, *, limit: int = 3, prefetch: int = 10, dead_letters: bool = True) -> None:
    channel = stage.connect("lesson", transport_options={"confirm_publish": True}).channel()
    producer, endless = Producer(channel), Queue("endless", channel=channel)

    stage.say("A classic queue counts nothing. A worker takes what is at the head and gives it back, a hundred times.")
    endless.declare()
    for body in VIEWS:
        producer.publish(body, routing_key="endless")
    stage.moves("killer", "[endless]", "worker", "[endless]", "worker", "[endless]")
    came = [take(endless, give_back=True) for _ in range(100)]
    stage.prove("deliveries of the killer", came.count(("killer", 0)), 100)
    stage.really("It goes back to the end of the queue.", "deliveries of the views behind it", len(set(came)) - 1, 0)

    stage.say(f"A quorum queue with a delivery limit of {limit}, and a dead-letter queue behind it.")
    dying = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"} if dead_letters else {}
    history = Queue("history", queue_arguments={**QUORUM, **dying, "x-delivery-limit": limit}, channel=channel)
    dead, unset = (Queue(name, queue_arguments=QUORUM, channel=channel) for name in ("dead", "unset"))
    for queue in (history, dead, unset):
        queue.declare()
    producer.publish("killer", routing_key="history")
    stage.moves("killer", "[history]", "worker", "[history]", "()", "[dead]")
    counts = [count for _, count in iter(lambda: take(history, give_back=True), None)]
    myth, claim = f"A limit of {limit} means {limit} deliveries.", "one more; the broker's count at each"
    stage.really(myth, claim, counts, list(range(limit + 1)))
    stage.prove("messages in [dead]", stage.eventually(lambda: stage.ready("dead"), 1), 1)
    death = dead.get(no_ack=True).headers["x-death"][0]
    stage.prove("why, and from where", [death["reason"], death["queue"]], ["delivery_limit", "history"])
    if stage.version >= (4, 0):
        producer.publish("killer", routing_key="unset")
        deliveries = len(list(iter(lambda: take(unset, give_back=True), None)))
        stage.prove("with the default limit of RabbitMQ 4: deliveries before it is gone", deliveries, 21)

    stage.say(f"Now each worker holds {prefetch} messages. It begins with the killer, and dies of it.")
    for body in VIEWS:
        producer.publish(body, routing_key="history")
    workers = (stage.spawn("-m", "lessons.hands.poison", "history", str(prefetch)) for _ in range(limit + 1))
    deaths = [stage.eventually(worker.poll, -9) for worker in workers]
    stage.prove("how the workers ended, one after another", deaths, [-9] * (limit + 1))
    dead_now = stage.eventually(lambda: stage.ready("dead"), len(VIEWS))
    stage.really("Only the killer is counted.", "all that was held with it was, too; in [dead]", dead_now, len(VIEWS))

    stage.say("The worker is mended. Redrive: publish each anew, wait for the confirm, and only then acknowledge it.")
    stage.moves("all ten", "[dead]", "redrive", "()", "[history]", "worker")
    while (letter := dead.get()) is not None:
        # After a crash between these two it is in both queues: better twice than never (lesson exactly_once).
        producer.publish(letter.payload, routing_key="history")
        letter.ack()
    # Without the old headers: from 4.3 on the count of what the broker itself moves goes on.
    again = list(iter(lambda: take(history, give_back=False), None))
    stage.prove("the mended worker got all of them", sorted(body for body, _ in again), sorted(VIEWS))
    stage.prove("and the broker counts from here again", {count for _, count in again}, {0})
    stage.prove("left in [dead]", stage.eventually(lambda: stage.ready("dead"), 0), 0)


def take(queue: Any, *, give_back: bool) -> tuple[str, int] | None:
    """The next message, and how often it came back, as the broker counts. None: the queue is empty."""
    if (message := queue.get()) is None:
        return None
    message.requeue() if give_back else message.ack()
    return message.payload, message.headers.get("x-delivery-count", 0)
