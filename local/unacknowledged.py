"""Says what a worker has: messages that were delivered to it and not acknowledged, and the views in them.

A running worker says it itself (`/held`, safe_consumer/monitoring.py). A frozen worker cannot. Then RabbitMQ says how
many messages it has. The views in them are those that were accepted, are not stored, and are nowhere else. In learner
mode a frozen worker reads no more messages: it has what it had when it was frozen.
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
from local.queue import VISIBILITY_S, QueueAway
from local.running_demo import Running, Worker
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
class Held:
    """A number of messages, and the views in them. None: the number of views is unknown."""

    messages: int
    views: int | None = None

    def __str__(self) -> str:
        if not self.messages:
            return "nothing"
        views = "" if self.views is None else f": {number(self.views, 'view')}"
        return f"{number(self.messages, 'message')}{views}"


@dataclass(frozen=True)
class Frozen:
    """What was noted when a worker was frozen."""

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


def number(count: int, what: str) -> str:
    """Format a number with its noun: `1 view`, `1,200 views`."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


# -- asked ---------------------------------------------------------------------------------------------------


def held_by(running: Running, worker: Worker) -> Held | None:
    """Return what this worker has now. None: unknown."""
    if worker.state != "frozen":
        return told_by(running, worker)
    note = notes(running.state).get(worker.name)
    if note is not None and note.pid != worker.pid:
        note = None
    if running.learner_mode:
        return None if note is None else Held(note.messages, note.views) if note.left_s else Held(0)
    return _of_frozen(running, worker, note)


def told_by(running: Running, worker: Worker) -> Held | None:
    """Return what a worker itself says that it has. None: it does not answer."""
    answer = _ask(worker)
    if answer is None:
        return None
    if running.learner_mode:
        return hidden(running, answer.get("read", []))
    return Held(answer["messages"], answer["views"])


def read_by(worker: Worker) -> list[int]:
    """In learner mode: return the ids of the messages that a worker read last. After its death,
    `hidden` checks them.
    """
    return list((_ask(worker) or {}).get("read", []))


def hidden(running: Running, read: Sequence[int]) -> Held | None:
    """In learner mode: return which of these messages are still invisible because a worker has read them."""
    try:
        bodies = running.queue().hidden(read)
    except QueueAway:
        return None
    return None if bodies is None else Held(len(bodies), sum(map(how_many, bodies)))


def _ask(worker: Worker) -> dict[str, Any] | None:
    if worker.metrics_url is None or worker.state != "running":
        return None
    try:
        # Not urlopen, which would use a proxy of the environment.
        with urllib3.PoolManager(timeout=TIMEOUT_S, retries=False) as http:
            return dict(http.request("GET", urljoin(worker.metrics_url, "/held")).json())
    except (urllib3.exceptions.HTTPError, ValueError, TypeError):
        return None


def _of_frozen(running: Running, worker: Worker, note: Frozen | None) -> Held | None:
    """Return what a frozen worker has, on RabbitMQ. RabbitMQ continues to deliver to it for a while."""
    answers: list[Held] = []

    def two_agree() -> bool:
        messages = running.queue().figures().held.get(worker.name, 0)
        views = _views_of_frozen(running, note) if messages else 0
        answers.append(Held(messages, None if views is None or views < messages else views))
        return answers[-1:] == answers[-2:-1]

    try:
        wait_until(two_agree, FIGURES_LAG_S, poll_interval_s=POLL_INTERVAL_S)
    except QueueAway:
        return None
    return answers[-1]


def _views_of_frozen(running: Running, note: Frozen | None) -> int | None:
    """Return the number of views that are nowhere else. None if they cannot be distinguished from others."""
    frozen = [worker for worker in running.workers() if worker.state == "frozen"]
    nowhere = strays(running)
    if note is None or note.strays is None or nowhere is None or len(frozen) != 1:
        return None
    return nowhere - note.strays


def strays(running: Running) -> int | None:
    """Return the number of views that are accepted and not stored, without those in an outbox or with a running worker.

    None if messages wait in the queue, because nobody knows how many views these contain, or if an answer is missing.
    """
    try:
        if running.queue().figures().ready:
            return None
    except QueueAway:
        return None
    held = [told_by(running, worker) for worker in running.workers() if worker.state == "running"]
    accepted, stored = view_counts.accepted(running.web_url), running.stored()
    if accepted is None or stored is None or None in held:
        return None
    return accepted - stored - waiting_in(running.state.outbox) - sum(one.views or 0 for one in held if one)


# -- noted ---------------------------------------------------------------------------------------------------


def note_frozen(running: Running, worker: Worker) -> Frozen:
    """Note what a worker has before it is frozen."""
    held = told_by(running, worker) or Held(0)
    gives_up_at = time() + (VISIBILITY_S if running.learner_mode else _heartbeat_s(running, worker))
    note = Frozen(worker.pid or 0, time(), held.messages, held.views, strays(running), gives_up_at)
    known = read_json(_path(running.state)) or {}
    write_json(_path(running.state), known | {worker.name: asdict(note)})
    return note


def notes(state: State) -> dict[str, Frozen]:
    """Return the notes of all workers that were frozen, by name. They may have been thawed or killed since."""
    return {name: Frozen(**note) for name, note in (read_json(_path(state)) or {}).items()}


def _path(state: State) -> Path:
    return state.run / "frozen.json"


def _heartbeat_s(running: Running, worker: Worker) -> float:
    """Return the seconds until RabbitMQ has missed two heartbeats. It checks every HEARTBEAT_S since the connection was
    made.

    The next check still counts what arrived since the last one. The two checks that find nothing come after that.
    """
    try:
        began_at = running.queue().connected_at(worker.name)
    except (QueueAway, urllib3.exceptions.HTTPError):
        began_at = None
    if began_at is None:
        return 3.0 * HEARTBEAT_S
    return HEARTBEAT_S - (time() - began_at) % HEARTBEAT_S + 2 * HEARTBEAT_S
