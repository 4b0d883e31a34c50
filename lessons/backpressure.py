"""Backpressure: what happens when more messages come in than go out.

A queue collects messages while its consumers are busy. If they are busy for too long, something becomes full. Then the
publishers should learn about it, because they can do something about it.

| what is full | who is told | how |
| --- | --- | --- |
| nothing: the queue has no limit | nobody | the queue grows |
| a queue with a limit and `drop-head` | nobody | the oldest message is dropped, the new one is confirmed |
| a queue with a limit and `reject-publish` | a publisher that asks for confirms | `basic.nack` |
| the broker: memory or disk alarm | every connection that publishes | `connection.blocked`, and no more answers |

During an alarm the broker does not read from connections that publish. You will see each of these cases, that consumers
go on, and what Flixtrail does with a view event during an alarm: it stores the event in its **outbox**, on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from amqp.exceptions import MessageNacked
from kombu import Producer, Queue

from lessons.harness.stage import Stage
from streaming_app.recording.outbox import waiting_in
from view_events.event import decode_message

TRY = """
1. `.venv/bin/flixtrail lesson backpressure --set overflow=drop-head`: what does the broker answer now? What is left in
   [short]?
2. During the alarm, let a consumer use the publisher's connection. What arrives, and when?
3. Start the disk alarm (`rabbitmqctl set_disk_free_limit 100000GB`). What is different for the publisher?
"""
BREAKS = ("overflow", "drop-head")
WHY = {"overflow": "With `drop-head`, a full queue confirms each new message and drops the oldest one instead."}


def answer(producer: Producer, queue: str) -> str:
    """Publish a view event, and return the broker's answer."""
    try:
        producer.publish("view", exchange="", routing_key=queue, confirm_timeout=1)
    except (MessageNacked, TimeoutError) as error:
        return "nack" if isinstance(error, MessageNacked) else "nothing"
    return "ack"


@contextmanager
def alarm(stage: Stage) -> Iterator[None]:
    """The memory alarm: allow the node 1 MB, and restore its limit afterwards."""
    usual = "0.6" if stage.version >= (4, 0) else "0.4"  # of the machine's memory, by default
    try:
        stage.broker.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        stage.eventually(lambda: stage.management.get("nodes")[0].get("mem_alarm"), expected=True)
        yield
    finally:
        stage.broker.ctl("set_vm_memory_high_watermark", usual)


def play(stage: Stage, *, overflow: str = "reject-publish") -> None:
    notices: list[str] = []
    how = {"confirm_publish": True, "on_blocked": lambda _: notices.append("blocked")}
    producer, consumer = Producer(stage.connect("producer", transport_options=how)), stage.connect("consumer").channel()

    stage.say("The consumer is too slow: for three view events that come, it takes one.")
    Queue("views", channel=consumer).declare()
    for number in range(30):
        answer(producer, "views")
        if number % 3 == 0:
            consumer.basic_get("views", no_ack=True)
    stage.moves("view", "publisher", "()", "[views]")
    waiting = stage.ready("views")
    stage.really("A slow consumer slows down its publishers.", "20 of 30 view events wait in [views].", waiting, 20)

    stage.say("[short] has a limit of five messages. The publisher asks for confirms.")
    Queue("short", max_length=5, queue_arguments={"x-overflow": overflow}, channel=consumer).declare()
    answers = [answer(producer, "short") for _ in range(7)]
    stage.prove("Of seven messages, the broker accepted five and refused two.", answers, ["ack"] * 5 + ["nack"] * 2)
    consumer.basic_get("short", no_ack=True)
    answers = [answer(producer, "short") for _ in range(2)]
    stage.prove("A consumer took one. Of two more, the broker accepted one.", answers, ["ack", "nack"])

    with TemporaryDirectory(ignore_cleanup_errors=True) as outbox:
        with alarm(stage):
            stage.say("The memory alarm: the broker stops reading from connections that publish.")
            stage.moves("view", "publisher", "not read")
            stage.prove("The publisher got no answer within a second.", answer(producer, "views"), "nothing")
            stage.prove("The broker told it once that its connection is blocked.", notices, ["blocked"])
            taken = len(stage.drain(consumer, "views"))
            stage.really("An alarm stops the broker.", "A consumer took the 20 waiting view events.", taken, 20)
            stage.say("Flixtrail during the same alarm: an event without a confirm within 250 ms goes to the outbox.")
            app = stage.spawn("-m", "lessons.programs.backpressure_app", outbox)
            event_id, _, safe = (app.stdout.readline() if app.stdout else "").strip().partition(" ")
            stage.moves("view", "viewer", "streaming app", "outbox")
            stage.prove("The streaming app answered in time.", safe, "in time")
            stage.prove("The view event is in the outbox.", waiting_in(Path(outbox)), 1)
            stage.prove("[history] is empty.", stage.ready("history"), 0)
        stage.say("The alarm is over.")
        late = stage.eventually(lambda: stage.ready("views") or 0, 1)
        stage.really(
            "A message without an answer did not arrive.", "The publisher's view event is in [views] now.", late, 1
        )
        left = stage.eventually(lambda: waiting_in(Path(outbox)), 0)
        stage.prove("The outbox is empty.", left, 0)
        found = {str(view.event_id) for body in stage.drain(consumer, "history") for view in decode_message(body)}
        stage.moves("view", "outbox", "(views)", "[history]")
        stage.prove("The view event from the outbox is in [history].", found, {event_id})
