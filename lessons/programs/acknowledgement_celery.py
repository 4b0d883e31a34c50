"""A Celery worker whose four child processes are killed: `python -m lessons.programs.acknowledgement_celery`.

It sends itself four tasks, one for each setting of `acks_late` and `reject_on_worker_lost`, each through its own queue.
A task prints the id of its process, and does not end by itself.
"""

from __future__ import annotations

import logging
import os
import warnings
from itertools import product
from time import sleep

import click
from celery import Celery
from kombu import Exchange, Queue

TASKS = {
    f"acks_late={late} reject_on_worker_lost={reject}": (late, reject)
    for late, reject in product((False, True), repeat=2)
}
WORKER = os.getpid()

logging.disable()  # the lesson kills its processes on purpose
warnings.simplefilter("ignore")  # Celery warns if root starts it

app = Celery("acknowledgement", broker=os.environ["AMQP_URL"])
app.conf.update(
    task_ignore_result=True,
    task_queues=[Queue(name, Exchange("tasks"), routing_key=name) for name in TASKS],
    worker_enable_remote_control=False,  # it would declare queues that are not durable
    worker_redirect_stdouts=False,
)


def work() -> None:
    """Work as long as the worker lives."""
    click.echo(os.getpid())
    while os.getppid() == WORKER:
        sleep(0.1)


def main() -> None:
    for name, (late, reject) in TASKS.items():
        app.task(work, name=name, acks_late=late, reject_on_worker_lost=reject)
        app.send_task(name, queue=name)
    app.Worker(
        concurrency=len(TASKS), loglevel="CRITICAL", quiet=True, without_gossip=True, without_mingle=True
    ).start()


if __name__ == "__main__":
    main()
