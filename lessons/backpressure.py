"""Backpressure: what happens when more comes in than goes out.

A queue takes what comes while its consumers are busy. When they are busy for too long, something has to give, and the
publishers should hear of it: they can do something about it.

| what is full | who is told | how |
| --- | --- | --- |
| nothing: a queue without a limit | nobody | it grows |
| a queue with a limit and `drop-head` | nobody | the oldest message is dropped, the new one confirmed |
| a queue with a limit and `reject-publish` | a publisher that asks for confirms | `basic.nack` |
| the broker: memory or disk alarm | every connection that publishes | `connection.blocked`, and no more answers |

In an alarm the broker stops reading from the sockets of those that publish. You will see each of these, that consumers
go on, and what Flixtrail does with a view in the middle of an alarm: its **outbox** keeps it on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from amqp.exceptions import MessageNacked
from kombu import Producer, Queue

from lessons.stage import Stage
from streaming_app.outbox import waiting_in
from view_events.event import decode_message

TRY = """
1. `flixtrail lesson backpressure --set overflow=drop-head`: which answers come now? Which views are left in [short]?
2. In the alarm, let a consumer run on the publisher's own connection. What arrives, and when?
3. Give the alarm of the disk (`rabbitmqctl set_disk_free_limit 100000GB`). What is different for the publisher?
"""
#: A setting, and a value of it with which something cannot be proved.
BREAKS = ("overflow", "drop-head")


def answer(producer: Producer, queue: str) -> str:
    """What the broker says to one more view."""
    try:
        producer.publish("view", exchange="", routing_key=queue, confirm_timeout=1)
    except (MessageNacked, TimeoutError) as error:
        return "nack" if isinstance(error, MessageNacked) else "nothing"
    return "ack"


@contextmanager
def alarm(stage: Stage) -> Iterator[None]:
    """The memory alarm: the node may use 1 MB. Whatever happens meanwhile, its old limit comes back."""
    usual = "0.6" if stage.version >= (4, 0) else "0.4"  # of the machine's memory, by default
    try:
        stage.broker.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        stage.eventually(lambda: stage.management.get("nodes")[0].get("mem_alarm"), expected=True)
        yield
    finally:
        stage.broker.ctl("set_vm_memory_high_watermark", usual)


def play(stage: Stage, *, overflow: str = "reject-publish") -> None:
    told: list[str] = []
    how = {"confirm_publish": True, "on_blocked": lambda _: told.append("blocked")}
    producer, consumer = Producer(stage.connect("producer", transport_options=how)), stage.connect("consumer").channel()

    stage.say("A consumer that is too slow: while three views come, it manages one.")
    Queue("views", channel=consumer).declare()
    for number in range(30):
        answer(producer, "views")
        if number % 3 == 0:
            stage.get(consumer, "views")
    stage.moves("view", "publisher", "()", "[views]")
    stage.really("A slow consumer slows its publishers down.", "of 30 views wait", stage.ready("views"), 20)

    stage.say("A queue with a limit of five refuses what is too much. Without confirms nobody would hear of it.")
    Queue("short", max_length=5, queue_arguments={"x-overflow": overflow}, channel=consumer).declare()
    stage.prove("seven answers", [answer(producer, "short") for _ in range(7)], ["ack"] * 5 + ["nack"] * 2)
    stage.get(consumer, "short")
    stage.prove("one is taken, and two more come", [answer(producer, "short") for _ in range(2)], ["ack", "nack"])

    with TemporaryDirectory(ignore_cleanup_errors=True) as outbox:
        with alarm(stage):
            stage.say("The memory alarm: the broker reads no more from those that publish, and tells them once.")
            stage.moves("view", "publisher", "not read")
            stage.prove("answer, and notification", [answer(producer, "views"), *told], ["nothing", "blocked"])
            stage.really("An alarm stops the broker.", "a consumer takes", len(stage.drain(consumer, "views")), 20)
            stage.say("Flixtrail in the same alarm: a view that is not confirmed within 250 ms goes to the outbox.")
            app = stage.spawn("-m", "lessons.hands.backpressure_app", outbox)
            event_id, _, safe = (app.stdout.readline() if app.stdout else "").strip().partition(" ")
            stage.moves("view", "viewer", "streaming app", "outbox")
            seen = (safe, waiting_in(Path(outbox)), stage.ready("history"))
            stage.prove("the view is safe; views in the outbox, and in [history]", seen, ("in time", 1, 0))
        stage.say("The alarm is over.")
        late = stage.eventually(lambda: stage.ready("views") or 0, 1)
        stage.really("No answer means that it did not arrive.", "the publisher's view is in [views]", late, 1)
        left = stage.eventually(lambda: waiting_in(Path(outbox)), 0)
        found = {str(view.event_id) for body in stage.drain(consumer, "history") for view in decode_message(body)}
        stage.moves("view", "outbox", "(views)", "[history]")
        stage.prove("left in the outbox, and ids in [history]: this one", (left, found == {event_id}), (0, True))
