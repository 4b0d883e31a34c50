"""Publisher confirms: what the broker answers to a message, if it is asked.

`basic.publish` has no answer. That it returned says that bytes went into a socket: not that the broker has the message,
and not that a queue took it. A channel in **confirm mode** numbers its messages from 1, and the broker answers to each:

| answer | what has happened |
| --- | --- |
| `basic.ack` | every queue that it was routed to has it; a persistent message is written to the disk |
| `basic.nack` | a queue refused it, or could not keep it |
| `basic.return`, then `basic.ack` | it was published as *mandatory*, and no queue takes it |
| none in time | in doubt: send it again, and let the consumer cope with it arriving twice |

You will see tasks vanish without a word, what an ack says, what it costs to wait for it, and what a kill leaves.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from celery import Celery
from kombu import Exchange, Producer, Queue

from lessons.stage import Stage

TRY = """
1. `flixtrail lesson confirms --set in_flight=1`: which proof fails? From which number on does it hold?
2. `flixtrail lesson confirms --set persistent=False`: all were acknowledged. How many are left after the kill, and why?
3. Connect with `transport_options={"confirm_publish": True}`, as Flixtrail does. What does kombu raise for a refusal?
"""
#: A setting, and a value of it with which something cannot be proved.
BREAKS = ("mandatory", False)
COUNT, TRIES = 200, 5


class Careful:
    """Publishes in confirm mode, and keeps the numbers in the broker's answers; `multiple`: all up to that one, too."""

    def __init__(self, channel: Any) -> None:
        self.sent, self.acked, self.nacked, self.returned = 0, set[int](), set[int](), list[int]()
        self._channel = channel
        self._producer = Producer(channel, on_return=lambda error, *_: self.returned.append(error.reply_code))
        channel.events["basic_ack"].add(lambda *answer: self._keep(self.acked, *answer))
        channel.events["basic_nack"].add(lambda *answer: self._keep(self.nacked, *answer))
        channel.confirm_select()

    def publish(self, body: str, exchange: str, key: str, *, in_flight: int = 1, **options: Any) -> None:
        """Return when fewer than `in_flight` messages have no answer: 1 waits for this one's."""
        self.sent += 1
        self._producer.publish(body, exchange=exchange, routing_key=key, **options)
        while self.sent - len(self.acked) - len(self.nacked) >= in_flight:
            self._channel.connection.drain_events(timeout=5)

    def _keep(self, numbers: set[int], number: int, multiple: int) -> None:
        numbers.update(set(range(1 if multiple else number, number + 1)) - self.acked - self.nacked)


def play(stage: Stage, *, mandatory: bool = True, in_flight: int = COUNT, persistent: bool = True) -> None:
    channel, careful = stage.connect("hopeful").channel(), Careful(stage.connect("careful").channel())
    Queue("history", channel=channel).declare()  # not last: RabbitMQ 3.10, killed, may forget the last declaration
    stage.say("[small] has room for one message and refuses more. Celery, as it comes, sends it three tasks.")
    small = Queue("small", max_length=1, queue_arguments={"x-overflow": "reject-publish"}, channel=channel)
    app, hopeful = Celery("lesson", broker=stage.url, set_as_current=False), Producer(channel)
    ids = [app.send_task("record", queue=small, producer=hopeful).id for _ in range(3)]
    stage.moves("task 2", "publisher", "()", "refused, and nobody is told")
    seen = (len(ids), len(stage.drain(channel, "small")))
    stage.really("It returned a task id, so the broker has the task.", "ids, and tasks in [small]", seen, (3, 1))

    stage.say("The same in confirm mode: an ack or a nack, with the number of the message.")
    for number in (1, 2, 3):
        careful.publish(f"view {number}", "", "small")
    stage.prove("acknowledged, and refused", (careful.acked, careful.nacked), ({1}, {2, 3}))

    stage.say("No queue is bound to (views). Message 4 goes there as it is, message 5 as mandatory.")
    Exchange("views", "topic", channel=channel).declare()
    careful.publish("view 4", "views", "view.started")
    queues = stage.management.get("exchanges", stage.vhost, "views", "bindings", "source")
    stage.really("What is confirmed is in a queue.", "acks, queues for 4", (careful.acked, len(queues)), ({1, 4}, 0))
    careful.publish("view 5", "views", "view.started", mandatory=mandatory)
    stage.moves("view 5", "publisher", "(views)", "publisher")
    stage.prove("what came back, with the code", careful.returned, [312])

    stage.say(f"What it costs: {COUNT} views, each after the answer to the one before, and then many in flight.")

    def seconds(together: int, mode: int = 2) -> float:
        began = monotonic()
        for left in range(COUNT, 0, -1):
            careful.publish("view", "", "history", delivery_mode=mode, in_flight=together if left > 1 else 1)
        return monotonic() - began

    times = [(seconds(1), seconds(in_flight)) for _ in range(TRIES)]  # in turn: a busy moment slows down both
    alone, many = map(min, zip(*times, strict=True))
    stage.really("Confirms are slow.", "many in flight take less than half the time", many * 2 < alone, expected=True)

    stage.say(f"{COUNT} more, and the broker is killed with -9 as soon as the last one is acknowledged.")
    seconds(COUNT, 2 if persistent else 1)
    stage.restart(kill=True)
    acked = len(careful.acked - {1, 4, 5})
    stage.prove(f"of {acked} acknowledged views there are", stage.ready("history"), acked)
