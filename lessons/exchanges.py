"""Exchanges: who decides where a message goes.

A publisher never writes to a queue. It hands each message to an **exchange**, with a **routing key**, and the exchange
gives a copy to every queue whose **binding** fits. How it compares is the exchange's type:

| type | a queue gets the message when |
| --- | --- |
| default (no name) | the routing key is the queue's name |
| direct | the routing key is the binding's key |
| fanout | always |
| topic | the key fits the binding's pattern: `*` is exactly one word, `#` is none or more |
| headers | the message's headers fit the binding's; the routing key does not count |

You will see each type decide, an exchange for exchanges only, and what lives through a restart (all, from 4.2 on).
"""

from __future__ import annotations

from amqp.exceptions import AccessRefused
from kombu import Exchange, Producer, Queue

from lessons.stage import Stage

TRY = """
1. `flixtrail lesson exchanges --set x_match=any`: which proof fails, and why does the message arrive now?
2. Bind `[sports]` with `view.*.#`. Which keys of the table does it take? Write it down before you run it.
3. Declare the same exchange again with another type. What does the broker say, and what happens to the channel?
"""
BREAKS = ("durable", False)
#: Pattern, key, and whether they fit.
TOPICS = (
    *(("view.*", key, key == "view.started") for key in ("view.started", "view", "view.started.again")),
    *(("view.#", key, True) for key in ("view.started", "view", "view.started.again")),
    *(("#.message", key, key != "test.message.not") for key in ("more.test.message", "test.message.not")),
)


def play(stage: Stage, *, x_match: str | None = None, durable: bool = True) -> None:
    producer = Producer(channel := stage.connect("lesson").channel())

    stage.say("The default exchange has no name. Every queue is bound to it, under its own name.")
    Queue("history", channel=channel).declare()
    producer.publish("hello", exchange="", routing_key="history")
    stage.moves("hello", "publisher", "()", "[history]")
    stage.prove("nobody has bound [history], and it has the message", stage.drain(channel, "history"), ["hello"])

    stage.say("A fanout exchange looks at nothing; a direct one compares the routing key with each binding's.")
    for name in ("films", "sports"):
        Queue(name, Exchange("some", "direct"), routing_key=name, channel=channel).declare()
        Queue(name, Exchange("all", "fanout"), channel=channel).declare()
    producer.publish("news", exchange="all", routing_key="nobody asks")
    stage.moves("news", "publisher", "(all)", "[films] [sports]")
    stage.prove("fanout: both queues have a copy", [stage.ready("films"), stage.ready("sports")], [1, 1])
    for key in ("sports", "weather"):
        producer.publish("goal", exchange="some", routing_key=key)
    stage.moves("goal", "publisher", "(some)", "[sports]")
    stage.prove("direct: only the equal key arrived", stage.drain(channel, "sports"), ["news", "goal"])

    stage.say("A topic exchange compares word by word; words are what is between the dots.")
    topic = Exchange("topics", "topic")
    for pattern, key, fits in TOPICS:
        queue = Queue("one", topic, routing_key=pattern, channel=channel)
        queue.declare()
        producer.publish("x", exchange="topics", routing_key=key)
        stage.prove(f"{pattern} fits {key}", bool(stage.drain(channel, "one")), fits)
        queue.delete()

    stage.say("A headers exchange ignores the routing key. Without x-match, must one header fit, or all of them?")
    wanted = {"kind": "started", "device": "tv"} | ({"x-match": x_match} if x_match else {})
    Queue("tv", Exchange("by-headers", "headers"), binding_arguments=wanted, channel=channel).declare()
    producer.publish("half", exchange="by-headers", headers={"kind": "started", "device": "phone"})
    producer.publish("whole", exchange="by-headers", headers={"kind": "started", "device": "tv", "more": "yes"})
    stage.moves("whole", "publisher", "(by-headers)", "[tv]")
    stage.really("x-match is `any` by default.", "only `whole` arrived", stage.drain(channel, "tv"), ["whole"])

    stage.say("An internal exchange takes messages from other exchanges only. A publisher is refused, by the broker.")
    stage.management.put("exchanges", stage.vhost, "inside", body={"type": "fanout", "internal": True})
    Queue("kept", channel=channel).declare()
    channel.queue_bind("kept", "inside")
    channel.exchange_bind(destination="inside", source="all")
    producer.publish("news", exchange="all")
    stage.moves("news", "publisher", "(all)", "(inside)", "[kept]")
    stage.prove("by way of (all) it arrived", stage.ready("kept"), 1)
    try:
        seen = Producer(stage.connect(transport_options={"confirm_publish": True})).publish("x", exchange="inside")
    except AccessRefused as error:
        seen = error.reply_code
    stage.prove("directly: the broker answers", seen, 403)
    stage.say("What lives on: a durable exchange through a restart, an auto-delete one until its last binding goes.")
    Exchange("lasting", "direct", durable=durable, channel=channel).declare()
    Exchange("passing", "direct", durable=False, channel=channel).declare()
    last = Queue("last", Exchange("auto", "direct", auto_delete=True, durable=False), channel=channel)
    last.declare()
    last.delete()
    stage.prove("(auto) is there after its last binding went", stage.has_exchange("auto"), expected=False)
    stage.restart()
    stage.prove("(lasting) is there after the restart", stage.has_exchange("lasting"), expected=True)
    kept = stage.version >= (4, 2)  # its new store, Khepri, keeps any exchange
    stage.prove("(passing) is there after the restart", stage.has_exchange("passing"), expected=kept)
