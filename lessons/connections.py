"""Connections: publisher, broker, queue and consumer, and what holds them together.

A **publisher** hands messages to the **broker**, which keeps them in **queues**; a **consumer** gets them from there.
Publisher and consumer never meet: each has a **connection** of its own to the broker, one TCP connection, one login.
On a connection there are **channels**, numbered from 1. All work (declare, publish, consume, acknowledge) goes over a
channel; to open one costs a round trip and no socket.

| what closes | takes along | leaves |
| --- | --- | --- |
| a channel | its consumers; the messages that it held go back to their queue | the connection, the other channels |
| a connection | its channels, its exclusive queues with what is in them | all other queues |

An error closes one of them: a channel where only that work was wrong (404, there is no such queue; 405, it is locked),
the connection where the broker cannot trust the client any more (530). You will see a view outlive its publisher, many
channels on one connection in the broker's own list, and what is gone after an error of either kind.
"""

from __future__ import annotations

from collections.abc import Callable

from amqp.exceptions import AMQPError
from kombu import Consumer, Message, Producer, Queue

from lessons.stage import Stage

TRY = """
1. `flixtrail lesson connections --set exclusive=false`: which proof fails? Would the queue outlive its connection now?
2. `flixtrail lesson connections --set channels=3000`: how many channels does the broker allow on one connection?
3. Publish to an exchange that is not there, without confirms. When do you learn of it, and what closes?
"""
BREAKS = ("exclusive", False)


def listed(stage: Stage, name: str) -> tuple[int, list[int]]:
    """How many connections of this name the broker lists, and the numbers of their channels."""
    connections = stage.management.get("vhosts", stage.vhost, "connections")
    ours = {one["name"] for one in connections if one.get("user_provided_name") == name}
    channels = stage.management.get("vhosts", stage.vhost, "channels")
    # A channel is listed under its connection's name, with its number after it in parentheses.
    numbers = [one["number"] for one in channels if one.get("name", "").rpartition(" (")[0] in ours]
    return len(ours), sorted(numbers)


def refused(work: Callable[[], object]) -> int | None:
    """The code with which the broker refuses it."""
    try:
        work()
    except AMQPError as error:
        return int(error.reply_code)
    return None


def play(stage: Stage, *, channels: int = 5, exclusive: bool = True) -> None:
    stage.say("A publisher comes, publishes a view, and goes. Nobody consumes yet.")
    publisher = stage.connect("publisher", transport_options={"confirm_publish": True})
    history = Queue("history", channel=publisher.channel())
    history.declare()
    Producer(history.channel).publish("view", routing_key="history")
    stage.moves("view", "publisher", "()", "[history]")
    here, gone = (1, [1]), (0, list[int]())
    seen = stage.eventually(lambda: listed(stage, "publisher"), here)
    stage.prove("connections of the publisher, and channels on them", seen, here)
    publisher.close()
    stage.prove("after it has gone", stage.eventually(lambda: listed(stage, "publisher"), gone), gone)
    stage.prove("consumers of [history], and views in it", (stage.consumers("history"), stage.ready("history")), (0, 1))

    stage.say("Now a consumer comes, with a connection of its own and many channels on it.")
    connection, taken = stage.connect("consumer"), list[Message]()
    first, second, *_ = [connection.channel() for _ in range(channels)]
    Consumer(first, history, on_message=taken.append).consume()
    connection.drain_events(timeout=5)
    stage.moves("view", "[history]", "consumer")
    stage.prove("what the consumer got", [message.body for message in taken], ["view"])
    here = (1, list(range(1, channels + 1)))
    seen = stage.eventually(lambda: listed(stage, "consumer"), here)
    stage.really("A channel is a TCP connection.", "the consumer's connections, and channels on them", seen, here)

    stage.say("The first channel holds the view, unacknowledged. On it the client asks for a queue that is not there.")
    Consumer(second, Queue("other"), on_message=taken.append).consume()
    stage.prove("the broker refuses", refused(lambda: first.queue_declare("missing", passive=True)), 404)
    stage.moves("view", "consumer", "[history]")
    stage.eventually(lambda: stage.ready("history") == 1, expected=True)
    stage.prove("views in [history], back from the channel", stage.ready("history"), 1)
    stage.prove("consumers of [history], gone with the channel", stage.consumers("history"), 0)
    stage.prove("consumers of [other], on the second channel", stage.consumers("other"), 1)

    stage.say("An exclusive queue belongs to the connection that declared it.")
    Queue("mine", durable=not exclusive, exclusive=exclusive, channel=second).declare()
    stage.prove("the broker refuses it to another connection", refused(lambda: stage.ready("mine")), 405)

    stage.say("Two consumers on one channel under the same tag: an error of the connection, and all of it goes.")
    second.basic_consume("other", consumer_tag="same")
    stage.prove("the broker refuses", refused(lambda: second.basic_consume("other", consumer_tag="same")), 530)
    seen = stage.eventually(lambda: listed(stage, "consumer"), gone)
    stage.prove("connections of the consumer, and channels on them", seen, gone)
    stage.prove("consumers of [other]", stage.eventually(lambda: stage.consumers("other"), 0), 0)
    stage.prove("the exclusive queue [mine]", stage.ready("mine"), None)
    stage.prove("views in [history], which is nobody's own", stage.ready("history"), 1)
