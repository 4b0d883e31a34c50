"""`python -m local.worker_launcher PORT ...`: runs `celery ...` when a server listens on PORT.

RabbitMQ takes five seconds to start, and a worker needs one second to load its code. So the worker loads meanwhile.
Celery itself, if it finds no broker, retries after 2 s, 4 s and 6 s; this program checks twenty times a second.
"""

from __future__ import annotations

import importlib
import sys
from time import sleep

from celery.__main__ import main

from local.ports import is_listening

POLL_INTERVAL_S = 0.05

if __name__ == "__main__":
    port = int(sys.argv.pop(1))
    for module in ("history_worker.tasks", "celery.bin.celery", "celery.bin.worker", "celery.concurrency.prefork"):
        importlib.import_module(module)
    importlib.import_module("local.deadly_views").install()
    while not is_listening(port):
        sleep(POLL_INTERVAL_S)
    main()
