"""Connections: publisher, broker, queue and consumer, and what connects them.

A **publisher** hands messages to the **broker**, which keeps them in **queues**. A **consumer** receives them from
there. Publisher and consumer never meet: each has its own **connection** to the broker, which is one TCP connection
with one login. A connection has **channels**, numbered from 1. All work (declare, publish, consume, acknowledge)
happens on a channel. To open a channel costs one round trip and no socket.

| what closes | what goes with it | what stays |
| --- | --- | --- |
| a channel | its consumers; its unacknowledged messages go back to their queue | the connection, the other channels |
| a connection | its channels, its exclusive queues and their messages | all other queues |

An error closes one of the two. If only one operation was wrong, the broker closes the channel (404: no such queue; 405:
the queue is locked). If the broker cannot trust the client any more, it closes the connection (530).

You will see a view event that stays after its publisher has gone, many channels on one connection, and what is gone
after an error of either kind.
"""

from __future__ import annotations

from collections.abc import Callable

from amqp.exceptions import AMQPError
from kombu import Consumer, Message, Producer, Queue

from lessons.harness.stage import Stage

TRY = """
1. `.venv/bin/flixtrail lesson connections --set exclusive=false`: which proof fails? Does the queue outlive its
   connection now?
2. `.venv/bin/flixtrail lesson connections --set channels=3000`: how many channels does the broker allow on one
   connection?
3. Publish to an exchange that does not exist, without confirms. When do you learn about it, and what closes?
"""
BREAKS = ("exclusive", False)
WHY = {"exclusive": "Only an exclusive queue belongs to one connection; every connection may use any other queue."}


def listed(stage: Stage, name: str) -> tuple[int, list[int]]:
    """Return how many connections of this name the broker lists, and the numbers of their channels."""
    connections = stage.management.get("vhosts", stage.vhost, "connections")
    ours = {one["name"] for one in connections if one.get("user_provided_name") == name}
    channels = stage.management.get("vhosts", stage.vhost, "channels")
    # A channel is listed under its connection's name, followed by its number in parentheses.
    numbers = [one["number"] for one in channels if one.get("name", "").rpartition(" (")[0] in ours]
    return len(ours), sorted(numbers)


def refused(work: Callable[[], object]) -> int | None:
    """Return the code with which the broker refuses it."""
    try:
        work()
    except AMQPError as error:
        return int(error.reply_code)
    return None


def play(stage: Stage, *, channels: int = 5, exclusive: bool = True) -> None:
    stage.say("A publisher connects, publishes a view event, and leaves. There is no consumer yet.")
    publisher = stage.connect("publisher", transport_options={"confirm_publish": True})
    history = Queue("history", channel=publisher.channel())
    history.declare()
    Producer(history.channel).publish("view", routing_key="history")
    stage.moves("view", "publisher", "()", "[history]")
    here, gone = (1, [1]), (0, list[int]())
    seen = stage.eventually(lambda: listed(stage, "publisher"), here)
    stage.prove("The publisher has one connection, with channel 1 on it.", seen, here)
    publisher.close()
    seen = stage.eventually(lambda: listed(stage, "publisher"), gone)
    stage.prove("Now it has left: no connection and no channel of it remains.", seen, gone)
    stage.prove("[history] has no consumer.", stage.consumers("history"), 0)
    stage.prove("The view event still waits in [history].", stage.ready("history"), 1)

    stage.say("Now a consumer connects, and opens {channels} channels.", channels=channels)
    connection, received = stage.connect("consumer"), list[Message]()
    first, second, *_ = [connection.channel() for _ in range(channels)]
    Consumer(first, history, on_message=received.append).consume()
    connection.drain_events(timeout=5)
    stage.moves("view", "[history]", "consumer")
    stage.prove("The consumer got the view event.", [message.body for message in received], ["view"])
    here = (1, list(range(1, channels + 1)))
    seen = stage.eventually(lambda: listed(stage, "consumer"), here)
    stage.really(
        "A channel is a TCP connection.",
        "The consumer has one connection, with {channels} channels on it.",
        seen,
        here,
        channels=channels,
    )

    stage.say(
        "The first channel has a consumer of [history] and the unacknowledged view event. The second one has a "
        "consumer of [other]. Then the client asks on the first channel for a queue that does not exist."
    )
    Consumer(second, Queue("other"), on_message=received.append).consume()
    code = refused(lambda: first.queue_declare("missing", passive=True))
    stage.prove("The broker answers 404, and closes the first channel.", code, 404)
    stage.moves("view", "consumer", "[history]")
    back = stage.eventually(lambda: stage.ready("history"), 1)
    stage.prove("The view event is back in [history].", back, 1)
    stage.prove("The consumer of [history] is gone.", stage.consumers("history"), 0)
    stage.prove("The consumer of [other] is still there.", stage.consumers("other"), 1)

    stage.say("An exclusive queue belongs to the connection that declared it.")
    Queue("mine", durable=not exclusive, exclusive=exclusive, channel=second).declare()
    stage.prove("The broker refuses it to another connection, with 405.", refused(lambda: stage.ready("mine")), 405)

    stage.say("Two consumers on one channel with the same tag are an error of the connection.")
    second.basic_consume("other", consumer_tag="same")
    code = refused(lambda: second.basic_consume("other", consumer_tag="same"))
    stage.prove("The broker answers 530, and closes the connection.", code, 530)
    seen = stage.eventually(lambda: listed(stage, "consumer"), gone)
    stage.prove("The consumer's connection and all its channels are gone.", seen, gone)
    consumers = stage.eventually(lambda: stage.consumers("other"), 0)
    stage.prove("The consumer of [other] is gone.", consumers, 0)
    stage.prove("The exclusive queue [mine] is gone.", stage.ready("mine"), None)
    stage.prove("[history] is still there, with the view event.", stage.ready("history"), 1)
