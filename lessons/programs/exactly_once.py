"""Workers that die between commit and acknowledgement: `python -m lessons.programs.exactly_once QUEUE DATABASE DONE`.

They run one after another, each with one message, until DONE of them have acknowledged. They are forked by a process
that has imported all modules, so that many can start in a second.
"""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import sys
from signal import SIGKILL

from kombu import Connection, Queue

#: How much of a video was watched in each view.
SECONDS = 10


def store(database: sqlite3.Connection, event_id: str) -> None:
    """Store the row and the sum that is derived from it in one transaction. A known id adds nothing."""
    with database:  # it commits at its end
        new = database.execute("INSERT INTO views VALUES (?) ON CONFLICT DO NOTHING", (event_id,)).rowcount
        database.execute("UPDATE watched SET seconds = seconds + ?", (SECONDS * new,))


def work(name: str, path: str) -> None:
    """Commit, then acknowledge. A worker that gets a new message dies in between; the next one lives."""
    database = sqlite3.connect(path)
    with Connection(os.environ["AMQP_URL"]) as connection:
        queue = Queue(name, channel=connection.channel())
        while (message := queue.get()) is None:
            pass  # until the broker has noticed that the worker before is dead
        event_id, redelivered = message.properties["message_id"], message.delivery_info["redelivered"]
        store(database, event_id)
        tell("again" if redelivered else "first", event_id)
        if not redelivered:
            os.kill(os.getpid(), SIGKILL)  # the crash window: it is stored, and the broker does not know
        message.ack()
    database.close()


def main(name: str, path: str, done: int) -> None:
    fork = multiprocessing.get_context("fork")
    while done:
        worker = fork.Process(target=work, args=(name, path))
        worker.start()
        worker.join()
        tell("exit", str(worker.exitcode))
        if worker.exitcode not in {0, -SIGKILL}:
            sys.exit(1)
        done -= worker.exitcode == 0


def tell(what: str, whom: str) -> None:
    """Tell the lesson."""
    sys.stdout.write(f"{what} {whom}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
