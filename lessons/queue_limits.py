"""Limits of a queue: how much it holds, how long a message waits, and what the queue gives up.

| x-argument | what it limits |
| --- | --- |
| `x-max-length` | how many messages may wait |
| `x-max-length-bytes` | how many bytes of payload may wait |
| `x-overflow` | what a full queue does: drop the oldest message (`drop-head`), or refuse a new one (`reject-publish`) |
| `x-message-ttl` | how many milliseconds a message may wait; its own `expiration` counts if it is lower |

`x-dead-letter-exchange` takes what the queue gives up. The header `x-death` says why. RabbitMQ ignores an x-argument
that it does not know, such as `x-length-bytes`.

You will see a full queue with each overflow, messages that expire, and a message that is expired and still waits.
"""

from __future__ import annotations

from contextlib import suppress

from amqp.exceptions import MessageNacked
from kombu import Exchange, Producer, Queue

from lessons.harness.stage import Stage

TRY = """
1. `.venv/bin/flixtrail lesson queue_limits --set limit=x-length-bytes`: which proof fails? Why did the broker not
   complain?
2. Let (dead) lead back to [line], and look at the `x-death` of `short` some seconds later. What does it count?
3. Give [reject] no dead-letter exchange, and publish without confirms. Who learns about the third message?
"""
BREAKS = ("limit", "x-length-bytes")
WHY = {
    "limit": "Only `x-max-length-bytes` limits bytes; `x-max-length` counts messages, and RabbitMQ ignores other names."
}
DEAD = {"x-dead-letter-exchange": "dead"}
REJECT, REJECT_DLX = {"x-overflow": "reject-publish"}, {"x-overflow": "reject-publish-dlx"}


def play(stage: Stage, *, limit: str = "x-max-length-bytes") -> None:
    channel = stage.connect(transport_options={"confirm_publish": True}).channel()
    producer = Producer(channel)
    Queue("dead", Exchange("dead", "fanout"), channel=channel).declare()

    def fill(name: str, arguments: dict[str, object], gives_up: int) -> tuple[str, str, str]:
        """Publish a, b and c. Return what the queue has, what was confirmed, and what is in [dead]."""
        Queue(name, queue_arguments={**arguments, **DEAD}, channel=channel).declare()
        confirmed = ""
        for body in "abc":
            with suppress(MessageNacked):
                producer.publish(body, routing_key=name)
                confirmed += body
        stage.eventually(lambda: stage.ready("dead"), gives_up, within_s=3)
        return "".join(stage.drain(channel, name)), confirmed, "".join(stage.drain(channel, "dead"))

    stage.say("Five queues get the messages a, b and c. The first three have room for two messages.")
    seen = fill("drop-head", {"x-max-length": 2}, 1)
    stage.moves("a", "[drop-head]", "(dead)", "[dead]")
    stage.prove("[drop-head] confirmed all three, and dead-lettered a, the oldest.", seen, ("bc", "abc", "a"))
    seen = fill("reject", {"x-max-length": 2, **REJECT}, 0)
    stage.prove("[reject] refused c, and told its publisher.", seen, ("ab", "ab", ""))
    seen = fill("reject-dlx", {"x-max-length": 2, **REJECT_DLX}, 1)
    stage.prove("[reject-dlx] refused c, told its publisher, and dead-lettered c.", seen, ("ab", "ab", "c"))
    stage.say("[bytes] has room for two bytes.")
    seen = fill("bytes", {limit: 2}, 1)
    stage.prove("[bytes] dead-lettered a: two bytes are left.", seen, ("bc", "abc", "a"))
    stage.say("[typo] has the argument `x-length-bytes`.")
    seen = fill("typo", {"x-length-bytes": 2}, 0)
    stage.really(
        "`x-length-bytes` limits a queue.",
        "[typo] has all three: RabbitMQ ignored the argument, and said nothing.",
        seen,
        ("abc", "abc", ""),
    )

    stage.say(
        "[a] has a TTL of 90 s and gets a message with an expiration of 0.4 s. [b] has a TTL of 0.4 s and gets a "
        "message with an expiration of 90 s."
    )
    send = producer.publish
    for name, ttl, expiration in (("a", 90, 0.4), ("b", 0.4, 90)):
        Queue(name, message_ttl=ttl, queue_arguments=DEAD, channel=channel).declare()
        send(f"from {name}", routing_key=name, expiration=expiration)
    stage.eventually(lambda: stage.ready("dead"), 2)
    died = sorted(stage.drain(channel, "dead"))
    stage.prove("Both expired: the lower of the two times counts.", died, ["from a", "from b"])

    stage.say("[line] gets `long`, which may wait for 60 s, and behind it `short`, which may wait for 0.1 s.")
    Queue("line", queue_arguments=DEAD, channel=channel).declare()
    send("long", routing_key="line", expiration=60)
    send("short", routing_key="line", expiration=0.1)
    left = stage.eventually(lambda: stage.ready("line"), 1, within_s=0.5)
    stage.really(
        "An expired message is gone.",
        "`short` has expired behind `long`, and still waits: [line] has two messages.",
        left,
        2,
    )
    channel.basic_get("line", no_ack=True)
    stage.moves("short", "[line]", "(dead)", "[dead]")
    left = stage.eventually(lambda: stage.ready("dead"), 1)
    stage.prove("A consumer took `long`. Now `short` is in [dead].", left, 1)
    death = channel.basic_get("dead", no_ack=True).headers["x-death"][0]
    why = (death["reason"], death["queue"], death["count"])
    stage.prove("Its header `x-death` says: expired in the queue `line`, one time.", why, ("expired", "line", 1))
