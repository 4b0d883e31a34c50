"""Exactly-once effect: a message that comes twice is counted once.

A worker commits its work, and then acknowledges the message. If it dies between the two, in the **crash window**, the
work is done and the broker does not know it: it delivers the message again. If the worker acknowledges first, a crash
loses the message. No order closes the window, because the broker and the database are two systems. So:

| what a worker does | after a crash in the window | name |
| --- | --- | --- |
| acknowledges, then commits | the work is never done | at most once |
| commits, then acknowledges | the work is done twice | at least once |
| the same, and recognizes each message by a **unique id** | the second time changes nothing | exactly-once effect |

Work that can be repeated without harm is **idempotent**. The publisher makes the id, before it first publishes. The
database accepts each id once (`ON CONFLICT DO NOTHING`). What is derived from it, such as a sum, changes in the same
transaction, and only if the id was new. Work outside the transaction, such as a mail, has to pass on the id.

You will see workers killed in the window, fifty times, and a sum that is still right. Then you will see what the flag
`redelivered` tells, and what it does not.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

from kombu import Producer, Queue

from lessons.harness.stage import Stage
from lessons.programs.exactly_once import SECONDS, store

TRY = """
1. `.venv/bin/flixtrail lesson exactly_once --set idempotent=false`: which proof fails, and how often does each view
   count?
2. Let `work` in `lessons/programs/exactly_once.py` acknowledge first, and die before it stores. How many rows are
   there?
3. Let it skip a message that is marked as redelivered. Which message of this lesson is lost then?
"""
BREAKS = ("idempotent", False)
WHY = {"idempotent": "Without a unique key the database accepts every id twice, so each view counts twice."}


def play(stage: Stage, *, crashes: int = 50, idempotent: bool = True) -> None:
    connection = stage.connect("lesson", transport_options={"confirm_publish": True})
    channel = connection.channel()
    producer, history = Producer(channel, routing_key="history"), Queue("history", channel=channel)
    history.declare()
    with TemporaryDirectory() as folder:
        path = Path(folder, "history.sqlite")
        database = sqlite3.connect(path)
        # Without a key, no two rows conflict, and ON CONFLICT DO NOTHING inserts every row.
        database.execute(f"CREATE TABLE views (event_id TEXT {'PRIMARY KEY' if idempotent else ''})")
        database.execute("CREATE TABLE watched AS SELECT 0 AS seconds")

        stage.say(
            "{crashes} view events of {seconds} seconds each. Their publisher gave each an id.",
            crashes=crashes,
            seconds=SECONDS,
        )
        ids = [f"view-{number:03}" for number in range(1, crashes + 1)]
        for event_id in ids:
            producer.publish("a view", message_id=event_id)
        waiting = stage.eventually(lambda: stage.ready("history"), crashes)
        stage.prove("{crashes} view events wait in [history].", waiting, crashes, crashes=crashes)

        stage.say(
            "A worker commits a view event, and is killed with -9 before it acknowledges. The next worker gets the "
            "event again."
        )
        stage.moves("view-001", "[history]", "worker: commit, killed", "[history]", "worker: commit, ack")
        workers = stage.spawn("-m", "lessons.programs.exactly_once", "history", str(path), str(crashes))
        told = [line.split() for line in workers.communicate(timeout=60)[0].splitlines()]
        killed = told.count(["exit", "-9"])
        stage.prove("{crashes} workers were killed in the crash window.", killed, crashes, crashes=crashes)
        again = sorted(event_id for what, event_id in told if what == "again")
        stage.prove("Every view event came again once, marked as redelivered.", again, ids)
        stage.prove("[history] is empty.", stage.eventually(lambda: stage.ready("history"), 0), 0)
        stage.really(
            "At least once means that a sum counts too much.",
            "After {deliveries} deliveries there are {crashes} rows and {seconds} seconds.",
            counted(database),
            (crashes, crashes * SECONDS),
            deliveries=2 * crashes,
            crashes=crashes,
            seconds=crashes * SECONDS,
        )

        stage.say("A consumer takes a message, and leaves before it has done anything.")
        producer.publish("a view", message_id="untouched")
        with connection.channel() as short:
            history(short).get()
        stage.eventually(lambda: stage.ready("history"), 1)
        before = counted(database)[0]
        message = history.get(no_ack=True)
        store(database, message.properties["message_id"])
        stage.prove("The message is marked as redelivered.", message.delivery_info["redelivered"], expected=True)
        stage.really(
            "A redelivered message was already processed.",
            "It was not: only now there is one row more.",
            counted(database)[0] - before,
            1,
        )

        stage.say("A publisher gets its confirm too late, and resends the message with the same id.")
        stage.moves("twin", "publisher", "()", "[history]", "worker")
        before, flags = counted(database)[0], []
        for _ in range(2):
            producer.publish("a view", message_id="twin")
            message = history.get(no_ack=True)
            store(database, message.properties["message_id"])
            flags.append(message.delivery_info["redelivered"])
        stage.prove("Neither of the two is marked as redelivered.", flags, [False, False])
        stage.really(
            "A message that is not marked is new.",
            "Only the id recognizes the second one: there is one row more.",
            counted(database)[0] - before,
            1,
        )
        database.close()


def counted(database: sqlite3.Connection) -> tuple[int, int]:
    """Return the number of rows, and the sum that is derived from them."""
    rows, seconds = database.execute("SELECT (SELECT count(*) FROM views), seconds FROM watched").fetchone()
    return rows, seconds
