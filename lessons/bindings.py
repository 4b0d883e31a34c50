"""Bindings: the way from an exchange to a queue, and what happens to a message without a way.

A **binding** is a rule: messages that reach this exchange and match go to that destination. The destination is a queue
or another exchange. A message that no binding leads to a queue is **unroutable**. A publisher can ask for unroutable
messages back: it publishes with the flag `mandatory`.

| the exchange | without `mandatory` | with `mandatory` |
| --- | --- | --- |
| has no alternate exchange | confirmed and dropped | returned (312 NO_ROUTE), then confirmed |
| has an alternate exchange that leads to a queue | confirmed, and in that queue | the same: nothing is returned |
| has an alternate exchange that leads to no queue | confirmed and dropped | returned, then confirmed |

Several exchanges can share one **alternate exchange**. In this lesson (films) and (series) share (others). With
`rabbitmqadmin`, which comes with RabbitMQ, you declare the same in a shell:

```
rabbitmqadmin declare exchange name=others type=fanout
rabbitmqadmin declare queue name=others
rabbitmqadmin declare binding source=others destination=others
rabbitmqadmin declare exchange name=films type=direct arguments='{"alternate-exchange": "others"}'
rabbitmqadmin declare exchange name=series type=direct arguments='{"alternate-exchange": "others"}'
```

You will see bindings that overlap, two exchanges in a row, every line of this table, and a binding that disappears
without anybody being told. That is why Flixtrail publishes with `mandatory`, and also watches the binding itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu import Exchange, Producer, Queue, binding

from lessons.harness.stage import Stage

TRY = """
1. `.venv/bin/flixtrail lesson bindings --set mandatory=False`: what is the publisher of `oops` told now? Why is that
   bad?
2. Give (films) an alternate exchange that nobody declares. Who is told: the one who declares it, or the publisher?
3. Bind (views) to (archive) as well, so that the two form a circle. How often does [archive] get a message?
"""
BREAKS = ("mandatory", False)
WHY = {"mandatory": "Without `mandatory` the broker confirms an unroutable message and drops it."}

CONFIRMED, RETURNED = "confirmed", "returned 312 NO_ROUTE"


def publisher(channel: Any) -> Callable[..., list[str]]:
    """Return a function that publishes a message, waits for the confirm, and returns what the broker answered."""
    answers: list[str] = []
    channel.events["basic_return"].add(lambda why, *_: answers.append(f"returned {why.reply_code} {why.reply_text}"))
    channel.events["basic_ack"].add(lambda *_: answers.append(CONFIRMED))

    def publish(body: str, exchange: str, key: str, *, mandatory: bool = False) -> list[str]:
        answers.clear()
        Producer(channel).publish(body, exchange=exchange, routing_key=key, mandatory=mandatory)
        return list(answers)

    return publish


def play(stage: Stage, *, mandatory: bool = True) -> None:
    channel = stage.connect("lesson", transport_options={"confirm_publish": True}).channel()
    publish = publisher(channel)

    stage.say("[history] has two bindings to (views): `view.#` and `view.started`. Both match the same message.")
    views = Exchange("views", "topic")
    Queue("history", [binding(views, "view.#"), binding(views, "view.started")], channel=channel).declare()
    publish("started", "views", "view.started")
    stage.moves("started", "publisher", "(views)", "[history]")
    copies = stage.drain(channel, "history")
    stage.really("Two bindings bring two copies.", "[history] has one copy.", copies, ["started"])

    stage.say("An exchange can be bound to another exchange. Messages go in this direction only.")
    archive = Exchange("archive", "fanout", channel=channel)
    Queue("archive", archive, channel=channel).declare()
    archive.bind_to("views", "view.finished")
    publish("finished", "views", "view.finished")
    publish("older", "archive", "view.finished")
    stage.moves("finished", "publisher", "(views)", "(archive)", "[archive]")
    have = stage.drain(channel, "archive")
    stage.prove("[archive] has both messages: `finished` and `older`.", have, ["finished", "older"])
    have = stage.drain(channel, "history")
    stage.prove("[history] only has `finished`, which was published to (views).", have, ["finished"])

    stage.say("No binding of (views) matches the key `veiw.started`. First it is published without `mandatory`.")
    said = publish("oops", "views", "veiw.started")
    stage.really(
        "A confirm means that a queue has the message.",
        "The broker confirmed an unroutable message.",
        said,
        [CONFIRMED],
    )
    stage.prove("[history] and [archive] are empty.", [stage.ready("history"), stage.ready("archive")], [0, 0])
    stage.moves("oops", "publisher", "(views)", "publisher")
    said = publish("oops", "views", "veiw.started", mandatory=mandatory)
    stage.prove(
        "With `mandatory`, the broker returns it (312 NO_ROUTE) and then confirms it.", said, [RETURNED, CONFIRMED]
    )

    stage.say("Somebody removes the binding `view.#` of [history]. The binding of (archive) is still there.")
    channel.queue_unbind("history", "views", "view.#")
    said = publish("unseen", "views", "view.finished", mandatory=True)
    stage.moves("unseen", "publisher", "(views)", "(archive)", "[archive]")
    stage.really(
        "With `mandatory` I learn about a missing binding.",
        "The broker only confirms, because [archive] has the message.",
        said,
        [CONFIRMED],
    )
    stage.prove("[history] has nothing, and nobody was told.", stage.ready("history"), 0)
    alternate(stage, channel, publish)


def alternate(stage: Stage, channel: Any, publish: Callable[..., list[str]]) -> None:
    stage.say("An alternate exchange takes what an exchange cannot route. (films) and (series) share one: (others).")
    Queue("others", Exchange("others", "fanout"), channel=channel).declare()
    for name in ("films", "series"):
        Exchange(name, "direct", arguments={"alternate-exchange": "others"}, channel=channel).declare()
    said = publish("a stray film", "films", "nobody", mandatory=True)
    stage.moves("a stray film", "publisher", "(films)", "(others)", "[others]")
    stage.really(
        "`mandatory` returns what matches no binding.",
        "Nothing is returned, because (others) leads to a queue.",
        said,
        [CONFIRMED],
    )
    publish("a stray series", "series", "nobody", mandatory=True)
    have = stage.drain(channel, "others")
    stage.prove("[others] has the messages of both exchanges.", have, ["a stray film", "a stray series"])
    channel.queue_delete("others")
    said = publish("a stray film", "films", "nobody", mandatory=True)
    stage.prove("Without a queue behind (others), the broker returns it again.", said, [RETURNED, CONFIRMED])
    said = publish("a stray film", "films", "nobody")
    stage.prove("Without `mandatory`, it is only confirmed, and dropped.", said, [CONFIRMED])
