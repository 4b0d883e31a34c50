"""Publisher confirms: what the broker answers to a message, if you ask for it.

`basic.publish` has no answer. If it returns, the bytes are in a socket: it does not mean that the broker has the
message, or that a queue accepted it. A channel in **confirm mode** numbers its messages from 1 (the **delivery tag**),
and the broker answers each of them:

| answer | what has happened |
| --- | --- |
| `basic.ack` | every queue that it was routed to has it; a persistent message is on the disk |
| `basic.nack` | a queue refused it, or could not keep it |
| `basic.return`, then `basic.ack` | it was published as *mandatory*, and no queue takes it |
| none in time | unknown: resend it, and let the consumer handle a message that arrives twice |

You will see tasks that disappear without an error, what an ack means, what it costs to wait for it, and what is left
after a kill.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from celery import Celery
from kombu import Exchange, Producer, Queue

from lessons.harness.stage import Stage

TRY = """
1. `.venv/bin/flixtrail lesson confirms --set in_flight=1`: which proof fails? From which number on does it hold?
2. `.venv/bin/flixtrail lesson confirms --set persistent=False`: all were acknowledged. How many are left after the
   kill, and why?
3. Connect with `transport_options={"confirm_publish": True}`, as Flixtrail does. What does kombu raise for a nack?
"""
BREAKS = ("mandatory", False)
WHY = {
    "mandatory": "Without `mandatory` the broker confirms a message that no queue takes, and does not return it.",
    "in_flight": "With few messages in flight, the publisher waits for almost every answer.",
    "persistent": "A message that is not persistent is confirmed without being written to disk.",
}
COUNT, TRIES = 200, 10


class ConfirmedProducer:
    """Publishes in confirm mode, and keeps the numbers in the broker's answers."""

    def __init__(self, channel: Any) -> None:
        self.sent, self.acked, self.nacked, self.returned = 0, set[int](), set[int](), list[int]()
        self._channel = channel
        self._producer = Producer(channel, on_return=lambda error, *_: self.returned.append(error.reply_code))
        channel.events["basic_ack"].add(lambda *answer: self._keep(self.acked, *answer))
        channel.events["basic_nack"].add(lambda *answer: self._keep(self.nacked, *answer))
        channel.confirm_select()

    def publish(self, body: str, exchange: str, key: str, *, in_flight: int = 1, **options: Any) -> None:
        """Return when fewer than `in_flight` messages have no answer: 1 waits for the answer to this message."""
        self.sent += 1
        self._producer.publish(body, exchange=exchange, routing_key=key, **options)
        while self.sent - len(self.acked) - len(self.nacked) >= in_flight:
            self._channel.connection.drain_events(timeout=5)

    def _keep(self, numbers: set[int], number: int, multiple: int) -> None:
        """`multiple`: the answer is for all earlier messages, too."""
        numbers.update(set(range(1 if multiple else number, number + 1)) - self.acked - self.nacked)


def play(stage: Stage, *, mandatory: bool = True, in_flight: int = COUNT, persistent: bool = True) -> None:
    channel, confirmed = stage.connect("lesson").channel(), ConfirmedProducer(stage.connect("confirmed").channel())
    Queue("history", channel=channel).declare()  # early: RabbitMQ 3.10, killed, may forget the last declaration
    stage.say("[small] has room for one message and refuses more. Celery sends it three tasks, without confirms.")
    small = Queue("small", max_length=1, queue_arguments={"x-overflow": "reject-publish"}, channel=channel)
    app, producer = Celery("lesson", broker=stage.url, set_as_current=False), Producer(channel)
    ids = [app.send_task("record", queue=small, producer=producer).id for _ in range(3)]
    stage.moves("task 2", "publisher", "()", "refused, and nobody is told")
    stage.prove("Celery returned three task ids.", len(ids), 3)
    there = len(stage.drain(channel, "small"))
    stage.really("A task id means that the broker has the task.", "Only one task is in [small].", there, 1)

    stage.say("Three messages in confirm mode. The broker answers with an ack or a nack, and the message's number.")
    for number in (1, 2, 3):
        confirmed.publish(f"view {number}", "", "small")
    answers = (set(confirmed.acked), set(confirmed.nacked))
    stage.prove("The broker acknowledged message 1, and refused 2 and 3.", answers, ({1}, {2, 3}))

    stage.say("No queue is bound to (views). Message 4 goes there, and then message 5 as mandatory.")
    Exchange("views", "topic", channel=channel).declare()
    confirmed.publish("view 4", "views", "view.started")
    queues = stage.management.get("exchanges", stage.vhost, "views", "bindings", "source")
    stage.really(
        "A confirmed message is in a queue.",
        "The broker acknowledged message 4, and no queue has it.",
        (4 in confirmed.acked, len(queues)),
        (True, 0),
    )
    confirmed.publish("view 5", "views", "view.started", mandatory=mandatory)
    stage.moves("view 5", "publisher", "(views)", "publisher")
    stage.prove("The broker returned message 5, with the code 312.", confirmed.returned, [312])

    stage.say(
        "{count} view events: first each one after the answer to the one before, then with {in_flight} in flight.",
        count=COUNT,
        in_flight=in_flight,
    )

    def seconds(together: int, mode: int = 2) -> float:
        began = monotonic()
        for left in range(COUNT, 0, -1):
            confirmed.publish("view", "", "history", delivery_mode=mode, in_flight=together if left > 1 else 1)
        return monotonic() - began

    alone = many = float("inf")
    for _ in range(TRIES):  # in turn, the best of each: on a busy machine a single measurement says little
        alone, many = min(alone, seconds(1)), min(many, seconds(in_flight))
    stage.really(
        "Confirms are slow.", "With many in flight, it takes less than half the time.", many * 2 < alone, expected=True
    )

    stage.say("{count} more, and the broker is killed with -9 as soon as the last one is acknowledged.", count=COUNT)
    seconds(COUNT, 2 if persistent else 1)
    stage.restart(kill=True)
    acked = len(confirmed.acked - {1, 4, 5})
    left = stage.ready("history")
    stage.prove("All {acked} acknowledged view events are in [history].", left, acked, acked=acked)
