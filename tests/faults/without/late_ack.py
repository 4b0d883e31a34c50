"""The worker, acknowledging a message when it begins with it: `celery -A tests.faults.without.late_ack worker`."""

from history_worker.app import app

app.conf.task_acks_late = False
