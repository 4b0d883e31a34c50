"""Bindings: what leads from an exchange to a queue, and what becomes of the rest.

A **binding** says: what comes to this exchange and fits goes there. "There" is a queue, or another exchange. What fits
no binding is **unroutable**. A publisher may ask to get that back: it publishes with the flag `mandatory`.

| its exchange | without `mandatory` | with `mandatory` |
| --- | --- | --- |
| has no alternate exchange | confirmed, and dropped | returned (312 NO_ROUTE), then confirmed |
| has one that leads to a queue | confirmed, and in that queue | the same: nothing is returned |
| has one that leads to no queue | confirmed, and dropped | returned, then confirmed |

You will see bindings that overlap, two exchanges in a row, every line of this table, and a binding that goes missing
without anybody being told. So Flixtrail publishes with `mandatory`, and watches the binding itself as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu import Exchange, Producer, Queue, binding

from lessons.stage import Stage

TRY = """
1. `flixtrail lesson bindings --set mandatory=False`: what does the publisher of `oops` hear now? Why is that bad?
2. Give (films) an alternate exchange that nobody declares. Who is told: the one who declares it, or the publisher?
3. Bind (views) to (archive) as well, so that the two make a circle. How often does [archive] get a message?
"""
#: A setting, and a value of it with which something cannot be proved.
BREAKS = ("mandatory", False)

CONFIRMED, RETURNED = "confirmed", "returned 312 NO_ROUTE"


def publisher(channel: Any) -> Callable[..., list[str]]:
    """It publishes, waits until the broker confirms, and gives what the broker said. The confirm comes last."""
    said: list[str] = []
    channel.events["basic_return"].add(lambda why, *_: said.append(f"returned {why.reply_code} {why.reply_text}"))
    channel.events["basic_ack"].add(lambda *_: said.append(CONFIRMED))

    def publish(body: str, exchange: str, key: str, *, mandatory: bool = False) -> list[str]:
        said.clear()
        Producer(channel).publish(body, exchange=exchange, routing_key=key, mandatory=mandatory)
        return list(said)

    return publish


def play(stage: Stage, *, mandatory: bool = True) -> None:
    channel = stage.connect("lesson", transport_options={"confirm_publish": True}).channel()
    publish = publisher(channel)

    stage.say("A binding leads from an exchange to a queue, with a key. Two bindings of [history] fit one message.")
    views = Exchange("views", "topic")
    Queue("history", [binding(views, "view.#"), binding(views, "view.started")], channel=channel).declare()
    publish("started", "views", "view.started")
    stage.moves("started", "publisher", "(views)", "[history]")
    stage.really("Two bindings bring two copies.", "[history] has one", stage.drain(channel, "history"), ["started"])

    stage.say("An exchange can be bound to an exchange. Messages go on from one to the other, and not back.")
    archive = Exchange("archive", "fanout", channel=channel)
    Queue("archive", archive, channel=channel).declare()
    archive.bind_to("views", "view.finished")
    publish("finished", "views", "view.finished")
    publish("older", "archive", "view.finished")
    stage.moves("finished", "publisher", "(views)", "(archive)", "[archive]")
    have = [stage.drain(channel, "archive"), stage.drain(channel, "history")]
    stage.prove("[archive] has both, [history] what came to (views)", have, [["finished", "older"], ["finished"]])

    stage.say("No binding of (views) fits the key `veiw.started`. What is the publisher told, without `mandatory`?")
    said = publish("oops", "views", "veiw.started")
    stage.really("A confirm means that a queue has it.", "the broker says", said, [CONFIRMED])
    stage.prove("[history] and [archive] have", [stage.ready("history"), stage.ready("archive")], [0, 0])
    stage.moves("oops", "publisher", "(views)", "publisher")
    said = publish("oops", "views", "veiw.started", mandatory=mandatory)
    stage.prove("with `mandatory`, the broker says", said, [RETURNED, CONFIRMED])

    stage.say("Somebody takes the binding `view.#` of [history] away; that of (archive) is still there. Who notices?")
    channel.queue_unbind("history", "views", "view.#")
    said = publish("unseen", "views", "view.finished", mandatory=True)
    stage.moves("unseen", "publisher", "(views)", "(archive)", "[archive]")
    stage.really("With `mandatory` I hear of a missing binding.", "[archive] took it, and I hear", said, [CONFIRMED])
    stage.prove("[history] has", stage.ready("history"), 0)
    alternate(stage, channel, publish)


def alternate(stage: Stage, channel: Any, publish: Callable[..., list[str]]) -> None:
    stage.say("An alternate exchange takes what its exchange cannot route. (films) has one: (others).")
    Queue("others", Exchange("others", "fanout"), channel=channel).declare()
    Exchange("films", "direct", arguments={"alternate-exchange": "others"}, channel=channel).declare()
    said = publish("stray", "films", "nobody", mandatory=True)
    stage.moves("stray", "publisher", "(films)", "(others)", "[others]")
    stage.really("`mandatory` returns what fits no binding.", "(others) took it: I hear", said, [CONFIRMED])
    stage.prove("[others] has", stage.drain(channel, "others"), ["stray"])
    channel.queue_delete("others")
    said = publish("stray", "films", "nobody", mandatory=True)
    stage.prove("now no queue is behind (others), and the broker says", said, [RETURNED, CONFIRMED])
    stage.prove("the same without `mandatory`", publish("stray", "films", "nobody"), [CONFIRMED])
