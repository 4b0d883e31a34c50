"""Exchanges: who decides where a message goes.

A publisher never writes to a queue. It hands each message to an **exchange**, together with a **routing key**. The
exchange gives a copy to every queue with a **binding** that matches. The exchange's type says how it compares:

| type | a queue gets the message if |
| --- | --- |
| default (no name) | the routing key is the queue's name |
| direct | the routing key equals the binding's key |
| fanout | it is bound: the routing key does not matter |
| topic | the routing key matches the binding's pattern: `*` is exactly one word, `#` is zero or more words |
| headers | the message's headers match the binding's headers: the routing key does not matter |

More settings of an exchange, queue or binding are **x-arguments**, such as `x-match`. Plugins add types and arguments
of their own: with the plugin `rabbitmq_delayed_message_exchange`, for example, an exchange of the type
`x-delayed-message` takes the argument `x-delayed-type`. Without the plugin, RabbitMQ refuses that type.

You will see each type decide, an exchange that only takes messages from other exchanges, an exchange type that no
plugin provides, and which exchanges are still there after a restart (all of them, from RabbitMQ 4.2 on).
"""

from __future__ import annotations

from amqp.exceptions import AccessRefused, AMQPError
from kombu import Exchange, Producer, Queue

from lessons.harness.stage import Stage

TRY = """
1. `.venv/bin/flixtrail lesson exchanges --set x_match=any`: which proof fails, and why does the message arrive now?
2. Bind `[sports]` with `view.*.#`. Which keys of the table does it take? Write it down before you run it.
3. Declare the same exchange again with another type. What does the broker answer, and what happens to the channel?
"""
BREAKS = ("x_match", "any")
WHY = {
    "x_match": "With `any`, one matching header is enough, and `half` has one.",
    "durable": "RabbitMQ forgets an exchange that is not durable when it restarts.",
}
#: Pattern, key, and whether they match.
TOPICS = (
    ("view.*", "view.started", True),
    ("view.*", "view", False),
    ("view.*", "view.started.again", False),
    ("view.#", "view.started", True),
    ("view.#", "view", True),
    ("view.#", "view.started.again", True),
    ("#.message", "more.test.message", True),
    ("#.message", "test.message.not", False),
)


def play(stage: Stage, *, x_match: str | None = None, durable: bool = True) -> None:
    producer = Producer(channel := stage.connect("lesson").channel())

    stage.say("The default exchange has no name. Every queue is bound to it, with the queue's name as the key.")
    Queue("history", channel=channel).declare()
    producer.publish("hello", exchange="", routing_key="history")
    stage.moves("hello", "publisher", "()", "[history]")
    stage.prove(
        "[history] has the message, although nobody bound the queue.", stage.drain(channel, "history"), ["hello"]
    )

    stage.say("A fanout exchange compares nothing. A direct exchange compares the routing key with each binding's key.")
    for name in ("films", "sports"):
        Queue(name, Exchange("some", "direct"), routing_key=name, channel=channel).declare()
        Queue(name, Exchange("all", "fanout"), channel=channel).declare()
    producer.publish("news", exchange="all", routing_key="any key")
    stage.moves("news", "publisher", "(all)", "[films] [sports]")
    copies = [stage.drain(channel, "films"), stage.drain(channel, "sports")]
    stage.prove("(all) is a fanout exchange: [films] and [sports] have a copy each.", copies, [["news"], ["news"]])
    for key in ("sports", "weather"):
        producer.publish(f"news with key {key}", exchange="some", routing_key=key)
    stage.moves("news with key sports", "publisher", "(some)", "[sports]")
    arrived = [stage.drain(channel, "films"), stage.drain(channel, "sports")]
    stage.prove(
        "(some) is a direct exchange: only the message with the key `sports` arrived, in [sports].",
        arrived,
        [[], ["news with key sports"]],
    )

    stage.say("A topic exchange compares word by word. Dots separate the words.")
    topic = Exchange("topics", "topic")
    for pattern, key, matches in TOPICS:
        queue = Queue("one", topic, routing_key=pattern, channel=channel)
        queue.declare()
        producer.publish("x", exchange="topics", routing_key=key)
        arrived_one = bool(stage.drain(channel, "one"))
        text = "`{pattern}` matches `{key}`." if matches else "`{pattern}` does not match `{key}`."
        stage.prove(text, arrived_one, matches, pattern=pattern, key=key)
        queue.delete()

    stage.say(
        "A headers exchange ignores the routing key. The binding of [tv] asks for two headers. `half` has one of them, "
        "`whole` has both."
    )
    wanted = {"kind": "started", "device": "tv"} | ({"x-match": x_match} if x_match else {})
    Queue("tv", Exchange("by-headers", "headers"), binding_arguments=wanted, channel=channel).declare()
    producer.publish("half", exchange="by-headers", headers={"kind": "started", "device": "phone"})
    producer.publish("whole", exchange="by-headers", headers={"kind": "started", "device": "tv", "more": "yes"})
    stage.moves("whole", "publisher", "(by-headers)", "[tv]")
    arrived_tv = stage.drain(channel, "tv")
    stage.really("`x-match` is `any` by default.", "Only `whole` arrived in [tv].", arrived_tv, ["whole"])

    stage.say("An internal exchange only takes messages from other exchanges.")
    stage.management.put("exchanges", stage.vhost, "inside", body={"type": "fanout", "internal": True})
    Queue("kept", channel=channel).declare()
    channel.queue_bind("kept", "inside")
    channel.exchange_bind(destination="inside", source="all")
    producer.publish("news", exchange="all")
    stage.moves("news", "publisher", "(all)", "(inside)", "[kept]")
    stage.prove("The message went through (all) and (inside) to [kept].", stage.ready("kept"), 1)
    code = 0
    try:
        Producer(stage.connect(transport_options={"confirm_publish": True})).publish("x", exchange="inside")
    except AccessRefused as error:
        code = error.reply_code
    stage.prove("If a publisher names (inside), the broker refuses it with 403.", code, 403)

    stage.say(
        "A type that begins with `x-` comes from a plugin. The plugin for delayed messages is not installed here."
    )
    delayed = Exchange("later", "x-delayed-message", arguments={"x-delayed-type": "direct"})
    answer = refused(stage, delayed)
    stage.prove("The broker refuses an exchange of the type `x-delayed-message`.", answer, "refused")

    stage.say("An auto-delete exchange goes with its last binding. A durable one is there again after a restart.")
    Exchange("lasting", "direct", durable=durable, channel=channel).declare()
    Exchange("passing", "direct", durable=False, channel=channel).declare()
    last = Queue("last", Exchange("auto", "direct", auto_delete=True, durable=False), channel=channel)
    last.declare()
    last.delete()
    stage.prove("(auto) is gone, because its last binding is gone.", stage.has_exchange("auto"), expected=False)
    stage.restart()
    stage.prove(
        "(lasting) is durable, and still there after the restart.", stage.has_exchange("lasting"), expected=True
    )
    if stage.version >= (4, 2):  # its new store, Khepri, keeps every exchange
        stage.prove("RabbitMQ 4.2 keeps (passing), too.", stage.has_exchange("passing"), expected=True)
    else:
        stage.prove("(passing) is not durable, and gone.", stage.has_exchange("passing"), expected=False)


def refused(stage: Stage, exchange: Exchange) -> str:
    """Declare it on its own connection, because the broker closes that if it refuses."""
    try:
        exchange(stage.connect("another").channel()).declare()
    except AMQPError:
        return "refused"
    return "declared"
