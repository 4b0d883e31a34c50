"""A different producer: publishes tasks of one event each to a queue, as fast as it can.

`python -m proof.bench.peers.producer EXCHANGE ROUTING_KEY TASK` reads the arguments of a task from standard input, one
JSON array per line. Publisher confirms are off, because this only prepares a backlog. Its messages are counted before
it is used.
"""

from __future__ import annotations

import os
import sys
from uuid import uuid4

from celery import Celery
from kombu import Connection


def main() -> None:
    exchange, routing_key, task = sys.argv[1:]
    app = Celery("producer")
    with Connection(os.environ["AMQP_URL"]) as connection:
        channel = connection.channel()
        for line in sys.stdin.buffer:
            message = app.amqp.as_task_v2(task_id := str(uuid4()), task, args=(), ignore_result=True)
            # Celery's body is [args, kwargs, options]. The arguments are JSON already.
            body = b"[" + line.rstrip() + b', {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
            prepared = channel.prepare_message(
                body,
                content_type="application/json",
                content_encoding="utf-8",
                headers=message.headers,
                properties={"delivery_mode": 2, "correlation_id": task_id},
            )
            channel.basic_publish(prepared, exchange=exchange, routing_key=routing_key)
        # The broker answers the close of the channel after all messages before it. Closing the connection at once
        # loses the last messages.
        channel.close()


if __name__ == "__main__":
    main()
