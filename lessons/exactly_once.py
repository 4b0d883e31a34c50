"""Exactly-once effect: what comes twice is counted once.

A worker commits its work and then acknowledges the message. If it dies between the two, in the **crash window**, the
work is done and the broker does not know: it delivers the message again. To acknowledge first only moves the window,
and then the message is lost. No order closes it, since the broker and the database are two. So:

| what a worker does | a crash in the window | called |
| --- | --- | --- |
| acknowledges, then commits | the work is never done | at most once |
| commits, then acknowledges | the work is done twice | at least once |
| the same, and knows each message by a **unique id** | the second time changes nothing | exactly-once effect |

Work that can be repeated without harm is **idempotent**. The publisher makes the id, before its first try. The database
takes each id once (`ON CONFLICT DO NOTHING`), and what is derived from it, such as a sum, changes in the same
transaction and only if the id was new. (What is in no transaction, such as a mail, has to carry the id along.)

You will see workers killed in the window, fifty times, and a sum that comes out right all the same; then what the flag
`redelivered` says, and what it does not.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

from kombu import Producer, Queue

from lessons.hands.exactly_once import SECONDS, store
from lessons.stage import Stage

TRY = """
1. `flixtrail lesson exactly_once --set idempotent=false`: which proof fails, and how often does each view count?
2. Let `work` in `lessons/hands/exactly_once.py` acknowledge first, and die before it stores. How many rows are there?
3. Let it skip what is flagged as redelivered, instead of storing it again. Which message of this lesson is lost then?
"""
#: A setting, and a value of it with which something cannot be proved.
BREAKS = ("idempotent", False)


def play(stage: Stage, *, crashes: int = 50, idempotent: bool = True) -> None:
    connection = stage.connect("lesson", transport_options={"confirm_publish": True})
    channel = connection.channel()
    producer, history = Producer(channel, routing_key="history"), Queue("history", channel=channel)
    history.declare()
    with TemporaryDirectory() as folder:
        path = Path(folder, "history.sqlite")
        database = sqlite3.connect(path)
        # Without a key no two rows conflict, and ON CONFLICT DO NOTHING lets everything through.
        database.execute(f"CREATE TABLE views (event_id TEXT {'PRIMARY KEY' if idempotent else ''})")
        database.execute("CREATE TABLE watched AS SELECT 0 AS seconds")

        stage.say(f"{crashes} views of {SECONDS} seconds each; each has an id from its publisher.")
        ids = [f"view-{number:03}" for number in range(1, crashes + 1)]
        for event_id in ids:
            producer.publish("a view", message_id=event_id)
        stage.prove("views in [history]", stage.eventually(lambda: stage.ready("history"), crashes), crashes)

        stage.say("A worker commits a view and is killed with -9 before it acknowledges. The next one gets it again.")
        stage.moves("view-001", "[history]", "worker: commit, killed", "[history]", "worker: commit, ack")
        hand = stage.spawn("-m", "lessons.hands.exactly_once", "history", str(path), str(crashes))
        told = [line.split() for line in hand.communicate(timeout=60)[0].splitlines()]
        stage.prove("workers that were killed in the crash window", told.count(["exit", "-9"]), crashes)
        again = sorted(event_id for what, event_id in told if what == "again")
        stage.prove("every view came again, flagged as redelivered, once", again == ids, expected=True)
        stage.prove("left in [history]", stage.eventually(lambda: stage.ready("history"), 0), 0)
        myth, claim = "At least once means that a sum counts too much.", f"{2 * crashes} deliveries; rows and seconds"
        stage.really(myth, claim, counted(database), (crashes, crashes * SECONDS))

        stage.say("The flag. A consumer takes a message, and is gone before it has done anything.")
        producer.publish("a view", message_id="untouched")
        with connection.channel() as short:
            history(short).get()
        stage.eventually(lambda: stage.ready("history"), 1)
        message = history.get(no_ack=True)
        store(database, message.properties["message_id"])
        flag, rows = message.delivery_info["redelivered"], counted(database)[0]
        claim = "nobody had; the flag, and the rows with it stored for the first time"
        stage.really("What is redelivered was worked on.", claim, (flag, rows), (True, crashes + 1))

        stage.say("A publisher whose confirm is late sends its message again, with the id that it had.")
        stage.moves("twin", "publisher", "()", "[history]", "worker")
        flags = []
        for _ in range(2):
            producer.publish("a view", message_id="twin")
            message = history.get(no_ack=True)
            store(database, message.properties["message_id"])
            flags.append(message.delivery_info["redelivered"])
        stage.prove("nobody has flagged", flags, [False, False])
        claim = "only the id tells the second one; rows and seconds"
        stage.really("What is not flagged is new.", claim, counted(database), (crashes + 2, (crashes + 2) * SECONDS))
        database.close()


def counted(database: sqlite3.Connection) -> tuple[int, int]:
    """Rows, and the sum that is derived from them."""
    rows, seconds = database.execute("SELECT (SELECT count(*) FROM views), seconds FROM watched").fetchone()
    return rows, seconds
