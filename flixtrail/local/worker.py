"""`python -m flixtrail.local.worker PORT ...`: `celery ...`, once somebody listens on PORT.

RabbitMQ takes five seconds to start, and a worker needs one to read its code: now it does so meanwhile. And Celery,
when it finds no broker, looks again after 2 s, after 4 s, after 6 s, while this looks twenty times a second.
"""

from __future__ import annotations

import importlib
import sys
from time import sleep

from celery.__main__ import main

from flixtrail.local.ports import answers

LOOK_EVERY_S = 0.05

if __name__ == "__main__":
    port = int(sys.argv.pop(1))
    for module in ("history_worker.tasks", "celery.bin.celery", "celery.bin.worker", "celery.concurrency.prefork"):
        importlib.import_module(module)
    while not answers(port):
        sleep(LOOK_EVERY_S)
    main()
