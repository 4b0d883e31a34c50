"""The ceiling of the database: our own statement and our batches over one connection, without HTTP and broker.

`python -m proof.bench.peers.bare_postgres`, once for each connection: batches of events as the worker gets them, a JSON
array a line, on standard input; `ready`, then, after a line on a second stream, the times of begin and end.
"""

from __future__ import annotations

import json
import sys
import time

import msgspec

from history_worker.database import connect
from history_worker.settings import DatabaseSettings
from history_worker.writer import write
from view_events.event import ViewEvent
from view_events.settings import read


def main() -> None:
    decoder = msgspec.json.Decoder(list[ViewEvent])
    count = int(sys.stdin.buffer.readline())
    batches = [decoder.decode(sys.stdin.buffer.readline()) for _ in range(count)]
    engine = connect(read(DatabaseSettings).database_url, pool_size=1)
    engine.connect().close()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.buffer.readline()  # go
    cpu, began = time.process_time(), time.time()
    for batch in batches:
        write(engine, batch)
    sys.stdout.write(json.dumps([began, time.time(), time.process_time() - cpu]) + "\n")


if __name__ == "__main__":
    main()
