"""Finds the unacknowledged messages of a worker, and the number of views in them.

A running worker reports them itself (`/held`, safe_consumer/monitoring.py). A frozen worker cannot. Then RabbitMQ has
the number of messages. The views in them are those that were accepted, are not stored, and are nowhere else. In learner
mode a frozen worker reads no more messages, so the number does not change after it was frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import urljoin

import urllib3

from local import view_counts
from local.errors import BrokerUnreachable
from local.printable import quantity
from local.queue import VISIBILITY_TIMEOUT_S
from local.running_demo import RunningDemo, Worker
from local.state import State, read_json, write_json
from safe_consumer.dead_letter_reasons import how_many
from service.waiting import wait_until
from streaming_app.recording.outbox import waiting_in

TIMEOUT_S = 2
#: RabbitMQ's figures lag by this many seconds. They are requested until two answers agree.
FIGURES_LAG_S = 3
POLL_INTERVAL_S = 0.3
#: celeryconfig.broker_heartbeat. RabbitMQ checks this often whether it has received anything from a client. At the
#: second check in a row without anything, it closes the connection.
HEARTBEAT_S = 10


@dataclass(frozen=True)
class Unacknowledged:
    """The unacknowledged messages of a worker, and the views in them. `views` None: their number is unknown."""

    messages: int
    views: int | None = None

    def __str__(self) -> str:
        if not self.messages:
            return "no unacknowledged messages"
        views = "" if self.views is None else f" ({quantity(self.views, 'view')})"
        return f"{quantity(self.messages, 'unacknowledged message')}{views}"


@dataclass(frozen=True)
class FrozenWorker:
    """What was recorded when a worker was frozen."""

    pid: int
    at: float  #: seconds since 1970
    messages: int
    views: int | None
    #: Views that were accepted, are not stored, and are in no queue and with no worker. For example, an id that was
    #: sent twice.
    strays: int | None
    gives_up_at: float  #: when the broker delivers the messages to another worker

    @property
    def left_s(self) -> int:
        """Seconds until the broker delivers the messages to another worker."""
        return max(0, round(self.gives_up_at - time()))


# -- asking --------------------------------------------------------------------------------------------------


def unacknowledged_by(running: RunningDemo, worker: Worker) -> Unacknowledged | None:
    """Return the unacknowledged messages of this worker. None: unknown."""
    if worker.state != "frozen":
        return reported_by(running, worker)
    note = frozen_workers(running.state).get(worker.name)
    if note is not None and note.pid != worker.pid:
        note = None
    if running.learner_mode:
        return None if note is None else Unacknowledged(note.messages, note.views) if note.left_s else Unacknowledged(0)
    return _unacknowledged_by_frozen(running, worker, note)


def reported_by(running: RunningDemo, worker: Worker) -> Unacknowledged | None:
    """Return the unacknowledged messages that a worker reports itself. None: it does not answer."""
    answer = _request(worker)
    if answer is None:
        return None
    if running.learner_mode:
        return still_unacknowledged(running, answer.get("read", []))
    return Unacknowledged(answer["messages"], answer["views"])


def last_read_by(worker: Worker) -> list[int]:
    """In learner mode: return the ids of the messages that a worker read last. After its death,
    `still_unacknowledged` checks them.
    """
    return list((_request(worker) or {}).get("read", []))


def still_unacknowledged(running: RunningDemo, read: Sequence[int]) -> Unacknowledged | None:
    """In learner mode: return which of these messages are still invisible because a worker has read them."""
    try:
        bodies = running.queue().unacked_bodies(read)
    except BrokerUnreachable:
        return None
    return None if bodies is None else Unacknowledged(len(bodies), sum(map(how_many, bodies)))


def _request(worker: Worker) -> dict[str, Any] | None:
    if worker.metrics_url is None or worker.state != "running":
        return None
    try:
        # Not urlopen, which would use a proxy of the environment.
        with urllib3.PoolManager(timeout=TIMEOUT_S, retries=False) as http:
            return dict(http.request("GET", urljoin(worker.metrics_url, "/held")).json())
    except (urllib3.exceptions.HTTPError, ValueError, TypeError):
        return None


def _unacknowledged_by_frozen(running: RunningDemo, worker: Worker, note: FrozenWorker | None) -> Unacknowledged | None:
    """Return the unacknowledged messages of a frozen worker. RabbitMQ continues to deliver to it for a while."""
    answers: list[Unacknowledged] = []

    def two_agree() -> bool:
        messages = running.queue().figures().unacked_by_worker.get(worker.name, 0)
        views = _views_of_frozen(running, note) if messages else 0
        answers.append(Unacknowledged(messages, None if views is None or views < messages else views))
        return answers[-1:] == answers[-2:-1]

    try:
        wait_until(two_agree, FIGURES_LAG_S, poll_interval_s=POLL_INTERVAL_S)
    except BrokerUnreachable:
        return None
    return answers[-1]


def _views_of_frozen(running: RunningDemo, note: FrozenWorker | None) -> int | None:
    """Return the number of views that are nowhere else. None if they cannot be distinguished from others."""
    frozen = [worker for worker in running.workers() if worker.state == "frozen"]
    nowhere = unaccounted_views(running)
    if note is None or note.strays is None or nowhere is None or len(frozen) != 1:
        return None
    return nowhere - note.strays


def unaccounted_views(running: RunningDemo) -> int | None:
    """Return the number of views that are accepted and not stored, without those in an outbox or with a running worker.

    None if messages wait in the queue, because the number of views in these is unknown, or if an answer is missing.
    """
    try:
        if running.queue().figures().ready:
            return None
    except BrokerUnreachable:
        return None
    unacknowledged = [reported_by(running, worker) for worker in running.workers() if worker.state == "running"]
    accepted, stored = view_counts.accepted(running.web_url), running.stored()
    if accepted is None or stored is None or None in unacknowledged:
        return None
    return accepted - stored - waiting_in(running.state.outbox) - sum(one.views or 0 for one in unacknowledged if one)


# -- frozen workers ------------------------------------------------------------------------------------------


def record_frozen(running: RunningDemo, worker: Worker) -> FrozenWorker:
    """Record the unacknowledged messages of a worker before it is frozen."""
    unacknowledged = reported_by(running, worker) or Unacknowledged(0)
    gives_up_at = time() + (VISIBILITY_TIMEOUT_S if running.learner_mode else _heartbeat_s(running, worker))
    note = FrozenWorker(
        worker.pid or 0, time(), unacknowledged.messages, unacknowledged.views, unaccounted_views(running), gives_up_at
    )
    known = read_json(_path(running.state)) or {}
    write_json(_path(running.state), known | {worker.name: asdict(note)})
    return note


def frozen_workers(state: State) -> dict[str, FrozenWorker]:
    """Return all workers that were frozen, by name. They may have been thawed or killed since."""
    return {name: FrozenWorker(**note) for name, note in (read_json(_path(state)) or {}).items()}


def _path(state: State) -> Path:
    return state.run / "frozen.json"


def _heartbeat_s(running: RunningDemo, worker: Worker) -> float:
    """Return the seconds until RabbitMQ has missed two heartbeats. It checks every HEARTBEAT_S since the connection was
    made.

    The next check still counts what arrived since the last one. The two checks that find nothing come after that.
    """
    try:
        began_at = running.queue().connected_at(worker.name)
    except (BrokerUnreachable, urllib3.exceptions.HTTPError):
        began_at = None
    if began_at is None:
        return 3.0 * HEARTBEAT_S
    return HEARTBEAT_S - (time() - began_at) % HEARTBEAT_S + 2 * HEARTBEAT_S
