"""Fan-out to services: one event, and a queue for each service that wants it.

A publisher says once what happened. Each **service** that wants to know has its own queue, bound to the exchange, and
gets a copy of every event. It takes the events at its own pace, and acknowledges them for itself. While it is away, its
queue collects them. A service that is added later binds one more queue. The publisher does not change.

| who consumes | what they get |
| --- | --- |
| several services, with one queue each | each service gets every event |
| several instances of a service, with one queue | one of them gets each event |
| a subscriber with an exclusive queue | every event while it is connected |

In this lesson the events go through Flixtrail's exchange (views). In Flixtrail one service is behind it, history. A
second service needs a queue and a binding, and nothing else. You will see two services that get the same event, two
instances that share a queue, a service that was away and catches up, and a subscriber that cannot.
"""

from __future__ import annotations

from contextlib import suppress

from kombu import Consumer, Message, Producer, Queue

from lessons.harness.stage import Stage
from view_events.topology import VIEWS, routing_key

TRY = """
1. `.venv/bin/flixtrail lesson fan_out --set queue=history`: the second service uses the queue of the first. Who gets
   what?
2. Bind the queue of the second service with `view.#.started.#`. Which events does it get now?
3. Restart the broker while the second service is away. What must be durable, so that it can still catch up?
"""
BREAKS = ("queue", "history")
WHY = {"queue": "Two services with one queue share its messages: each event goes to one of them."}


class Service:
    """Consumes from the moment it is made until it leaves."""

    def __init__(self, stage: Stage, name: str, queue: Queue) -> None:
        self._connection = stage.connect(name)
        self._received: list[str] = []
        Consumer(self._connection.channel(), queue, on_message=self._on_message).consume()

    def receive(self, how_many: int) -> list[str]:
        """Wait for so many view events, and return those that came since the last call."""
        with suppress(TimeoutError):
            while len(self._received) < how_many:
                self._connection.drain_events(timeout=2)
        received, self._received = self._received, []
        return received

    def leave(self) -> None:
        self._connection.close()

    def _on_message(self, message: Message) -> None:
        self._received.append(message.body)
        message.ack()


def play(stage: Stage, *, queue: str = "recommendations") -> None:
    producer = Producer(stage.connect("publisher", transport_options={"confirm_publish": True}), VIEWS)

    def publish(*views: str) -> None:
        for view in views:
            producer.publish(view, routing_key=routing_key(["finished"]))

    stage.say(
        "History and recommendations are services with a durable queue each. A web page that shows the current views "
        "has an exclusive queue."
    )
    history = Service(stage, "history", Queue("history", VIEWS, "view.#"))
    other = Service(stage, "recommendations", Queue(queue, VIEWS, "view.#"))
    page_queue = Queue("page", VIEWS, "view.#", exclusive=True, auto_delete=True, durable=False)
    page = Service(stage, "page", page_queue)
    publish("view 1")
    stage.moves("view 1", "publisher", "(views)", "[history] [{queue}] [page]", "three services", queue=queue)
    got = [service.receive(1) for service in (history, other, page)]
    stage.prove("History, recommendations and the page got view 1 each.", got, [["view 1"]] * 3)

    stage.say("History gets a second instance, which uses the same queue.")
    second = Service(stage, "history 2", Queue("history", VIEWS, "view.#"))
    publish("view 2", "view 3", "view 4", "view 5")
    got = sorted([history.receive(2), second.receive(2)])
    stage.really(
        "All consumers of a queue get all its messages.",
        "The two instances share them: one got view 2 and 4, the other one got view 3 and 5.",
        got,
        [["view 2", "view 4"], ["view 3", "view 5"]],
    )
    views = ["view 2", "view 3", "view 4", "view 5"]
    stage.prove("Recommendations has its own queue, and got all four.", other.receive(4), views)

    stage.say(
        "Recommendations stops, the page is closed, and history has one instance again. Then two more views happen."
    )
    for service in (other, page, second):
        service.leave()
    consumers = stage.eventually(lambda: [stage.consumers(queue), stage.consumers("history")], [0, 1])
    stage.prove("[{queue}] has no consumer now, and [history] has one.", consumers, [0, 1], queue=queue)
    publish("view 6", "view 7")
    stage.moves("view 6", "publisher", "(views)", "[history] [{queue}]", queue=queue)
    stage.prove("History got view 6 and view 7.", history.receive(2), ["view 6", "view 7"])
    stage.prove("Two view events wait in [{queue}].", stage.ready(queue), 2, queue=queue)
    stage.prove("The queue of the page is gone.", stage.ready("page"), None)

    stage.say("Recommendations and the page come back, and one more view happens.")
    back, page = Service(stage, "recommendations", Queue(queue)), Service(stage, "page", page_queue)
    publish("view 8")
    stage.prove("Recommendations caught up: it got view 6, 7 and 8.", back.receive(3), ["view 6", "view 7", "view 8"])
    stage.prove("The page has a new queue: it only got view 8.", page.receive(1), ["view 8"])
