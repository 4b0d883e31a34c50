"""The worker, which does not requeue the message of a process of its pool that died."""

from history_worker.app import app

app.conf.task_reject_on_worker_lost = False
