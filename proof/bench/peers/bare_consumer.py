"""The upper limit of one consumer in Python: it consumes tasks of one event and only acknowledges them.

`python -m proof.bench.peers.bare_consumer QUEUE COUNT` prints when the first task came, when the last one was
acknowledged, and the CPU seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from kombu import Connection, Consumer, Queue

#: The prefetch count of a usual worker with two processes and a multiplier of 64.
PREFETCH = 128
STALL_TIMEOUT_S = 10


def main() -> None:
    queue, wanted = sys.argv[1], int(sys.argv[2])
    seen, began, cpu = 0, 0.0, 0.0

    def ack(_body: Any, message: Any) -> None:
        nonlocal seen, began, cpu
        if not seen:
            began, cpu = time.time(), time.process_time()
        seen += 1
        message.ack()

    with Connection(os.environ["AMQP_URL"]) as connection:
        consumer = Consumer(connection, [Queue(queue, no_declare=True)], callbacks=[ack], prefetch_count=PREFETCH)
        with consumer:
            while seen < wanted:
                try:
                    connection.drain_events(timeout=STALL_TIMEOUT_S)
                except TimeoutError:
                    sys.exit(f"{seen} of {wanted} messages came")
        # The last ack may still be on its way. The answer to this request comes after it.
        connection.default_channel.queue_declare(queue, passive=True)
        ended = time.time()
    sys.stdout.write(json.dumps([began, ended, time.process_time() - cpu]) + "\n")


if __name__ == "__main__":
    main()
