"""Fan-out to services: one event, a queue for each service that wants it.

A publisher says once what happened. Each **service** that wants to know has a queue of its own, bound to the exchange,
and gets a copy of every event there. It takes them at its own pace, acknowledges them for itself, and may be away: its
queue collects meanwhile. Whoever comes later binds one more queue, and the publisher is not changed.

| who consumes | gets |
| --- | --- |
| several services, a queue each | every event, each of them |
| several instances of a service, one queue | every event, one of them |
| a subscriber with an exclusive queue | every event while it is connected |

The events here go through Flixtrail's exchange `(views)`. One service is behind it, history; a second one would need a
queue and a binding, no more. You will see two services get one event, two instances share a queue, a service that was
away catch up, and a subscriber that cannot.
"""

from __future__ import annotations

from contextlib import suppress

from kombu import Consumer, Message, Producer, Queue

from lessons.stage import Stage
from view_events.topology import VIEWS, routing_key

TRY = """
1. `flixtrail lesson fan_out --set queue=history`: the second service takes the first one's queue. Who gets what?
2. Bind the queue of the second service with `view.#.started.#`. Which events does it get now?
3. Restart the broker while the second service is away. What must be durable, so that it can still catch up?
"""
BREAKS = ("queue", "history")


class Service:
    """Consumes from its making until it leaves."""

    def __init__(self, stage: Stage, name: str, queue: Queue) -> None:
        self._connection = stage.connect(name)
        self._got: list[str] = []
        Consumer(self._connection.channel(), queue, on_message=self._take).consume()

    def got(self, how_many: int) -> list[str]:
        """So many views, once they are here: those that were not asked for yet."""
        with suppress(TimeoutError):
            while len(self._got) < how_many:
                self._connection.drain_events(timeout=2)
        got, self._got = self._got, []
        return got

    def leave(self) -> None:
        self._connection.close()

    def _take(self, message: Message) -> None:
        self._got.append(message.body)
        message.ack()


def play(stage: Stage, *, queue: str = "recommendations") -> None:
    producer = Producer(stage.connect("publisher", transport_options={"confirm_publish": True}), VIEWS)

    def publish(*views: str) -> None:
        for view in views:
            producer.publish(view, routing_key=routing_key(["finished"]))

    stage.say("Two services with a durable queue each, and a page that shows what is on now, with an exclusive one.")
    history = Service(stage, "history", Queue("history", VIEWS, "view.#"))
    other = Service(stage, "recommendations", Queue(queue, VIEWS, "view.#"))
    page_queue = Queue("page", VIEWS, "view.#", exclusive=True, auto_delete=True, durable=False)
    page = Service(stage, "page", page_queue)
    publish("view 1")
    stage.moves("view 1", "publisher", "(views)", f"[history] [{queue}] [page]", "three services")
    got = [service.got(1) for service in (history, other, page)]
    stage.prove("history, recommendations and the page got", got, [["view 1"]] * 3)

    stage.say("History gets a second instance, on the same queue.")
    second = Service(stage, "history 2", Queue("history", VIEWS, "view.#"))
    publish("view 2", "view 3", "view 4", "view 5")
    myth = "All consumers of a queue get all of its messages."
    seen = [history.got(2), second.got(2)]
    stage.really(myth, "the two instances got", sorted(seen), [["view 2", "view 4"], ["view 3", "view 5"]])
    stage.prove("recommendations got", other.got(4), ["view 2", "view 3", "view 4", "view 5"])

    stage.say("Recommendations goes away, the page is closed, history is one instance again. Two more views happen.")
    for service in (other, page, second):
        service.leave()
    consumers = stage.eventually(lambda: [stage.consumers(queue), stage.consumers("history")], [0, 1])
    stage.prove("consumers of recommendations, and of history", consumers, [0, 1])
    publish("view 6", "view 7")
    stage.moves("view 6", "publisher", "(views)", f"[history] [{queue}]")
    stage.prove("history, which was not disturbed, got", history.got(2), ["view 6", "view 7"])
    stage.prove(f"views that wait in [{queue}]", stage.ready(queue), 2)
    stage.prove("the page's queue", stage.ready("page"), None)

    stage.say("Both come back, and one more view happens.")
    back, page = Service(stage, "recommendations", Queue(queue)), Service(stage, "page", page_queue)
    publish("view 8")
    stage.prove("recommendations caught up: it got", back.got(3), ["view 6", "view 7", "view 8"])
    stage.prove("the page has a new queue: it got", page.got(1), ["view 8"])
