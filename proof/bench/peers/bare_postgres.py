"""The upper limit of the database: our own statement and batches over one connection, without HTTP and broker.

`python -m proof.bench.peers.bare_postgres` runs once per connection. It reads from standard input: the number of
batches, then each batch of events as a worker gets it, one JSON array per line. Then it prints `ready`. After one more
line of input, it writes the batches, and prints the times of begin and end and its CPU seconds.
"""

from __future__ import annotations

import json
import sys
import time

import msgspec

from history_worker.settings import DatabaseSettings
from history_worker.store.writer import write
from service.database import connect
from service.settings import read
from view_events.event import ViewEvent


def main() -> None:
    decoder = msgspec.json.Decoder(list[ViewEvent])
    count = int(sys.stdin.buffer.readline())
    batches = [decoder.decode(sys.stdin.buffer.readline()) for _ in range(count)]
    engine = connect(read(DatabaseSettings).database_url, pool_size=1)
    engine.connect().close()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.buffer.readline()  # wait for the signal to start
    cpu, began = time.process_time(), time.time()
    for batch in batches:
        write(engine, batch)
    sys.stdout.write(json.dumps([began, time.time(), time.process_time() - cpu]) + "\n")


if __name__ == "__main__":
    main()
