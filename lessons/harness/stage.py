"""Where a lesson plays: a virtual host of its own on a real broker, a voice, and proofs.

`stage` is the lessons' harness and no part of RabbitMQ: it tells what happens, compares, and asks the broker what it
knows. Everything else in a lesson is kombu's API, as you would write it in your own program.

A proof compares with what the broker says: a queue's length, a message that came, one that came back, a figure of the
management API. It never compares with what the script believes that it has done.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from time import monotonic, sleep
from typing import Any, TypeVar

from amqp.exceptions import NotFound
from kombu import Connection

from lessons.harness.broker import Broker
from lessons.harness.events import Broken, Explained, Moved, Proved, Said, Teller
from lessons.harness.management import Management
from local.environment import inherited_environment
from local.unsupervised_part import ROOT

T = TypeVar("T")

#: Seconds. RabbitMQ collects its figures four times a second, and publishes them a little later.
EVENTUALLY_S = 10
LOOK_EVERY_S = 0.05
CONNECT_TIMEOUT_S = 5


class Stage:
    """The harness of one lesson. `on_stage` makes it, and cleans up in the end.

    Texts may contain values: `stage.say("The limit is {limit}.", limit=3)`. `lessons/ko/NAME.toml` has each text in
    Korean.
    """

    def __init__(self, broker: Broker, vhost: str, tell: Teller, stack: ExitStack, reasons: Sequence[str] = ()) -> None:
        self.broker = broker
        self.vhost = vhost
        self.management = Management(broker.management_url)
        #: (3, 10, 8): some things differ from version to version.
        self.version = self.management.version
        #: The proofs that failed.
        self.broken: list[Broken] = []
        self._tell = tell
        self._stack = stack
        self._reasons = reasons

    # -- the voice --------------------------------------------------------------------------------------

    def say(self, text: str, **values: object) -> None:
        """Say in one or two sentences what comes now."""
        self._tell(Said(text, values))

    def moves(self, message: str, *way: str, **values: object) -> None:
        """Draw a message on its way: `stage.moves("view", "publisher", "(views)", "[history]", "worker")`."""
        self._tell(Moved(message, way, values))

    # -- the proof --------------------------------------------------------------------------------------

    def prove(self, sentence: str, seen: T, expected: T, **values: object) -> None:
        """Tell that the sentence is true if `seen`, which comes from the broker, is as expected.

        Otherwise tell that it is not, what was found instead, and why the reader's setting changes it. Then the lesson
        goes on.
        """
        self._prove(sentence, seen, expected, values, None)

    def really(self, myth: str, sentence: str, seen: T, expected: T, **values: object) -> None:
        """Prove what is true instead of what many believe: a "Really?" box."""
        self._prove(sentence, seen, expected, values, myth)

    def eventually(self, look: Callable[[], T], expected: object, within_s: float | None = None) -> T:
        """Return what `look` returns, as soon as it is as expected, or what it returned last.

        Some figures of the broker lag. Prove the returned value afterwards.
        """
        # With a setting that breaks something, every such proof would cost the whole time.
        deadline = monotonic() + (within_s or (EVENTUALLY_S if not self.broken else 2))
        while (seen := look()) != expected and monotonic() < deadline:
            sleep(LOOK_EVERY_S)
        return seen

    def _prove(
        self, sentence: str, seen: object, expected: object, values: Mapping[str, object], myth: str | None
    ) -> None:
        if seen == expected:
            self._tell(Proved(sentence, values, myth))
            return
        broken = Broken(sentence, expected, seen, values)
        self._tell(broken)
        if not self.broken:
            for reason in self._reasons:
                self._tell(Explained(reason))
        self.broken.append(broken)

    # -- what a lesson works with -----------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The broker's address for AMQP, with this lesson's virtual host."""
        return f"{self.broker.amqp_url}/{self.vhost}"

    def connect(self, name: str = "lesson", **options: Any) -> Connection:
        """Return an open kombu connection, with this name in the broker's list. It is closed after the lesson."""
        options.setdefault("transport_options", {}).setdefault("client_properties", {"connection_name": name})
        connection = Connection(self.url, connect_timeout=CONNECT_TIMEOUT_S, **options)
        connection.connect()
        self._stack.callback(self._close, connection)
        return connection

    def spawn(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a Python process, for a program that is killed: `stage.spawn("-m", "lessons.programs.poison")`.

        It finds the broker in AMQP_URL. You can read its standard output. It is killed after the lesson.
        """
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**inherited_environment(AMQP_URL=self.url, PYTHONUNBUFFERED="1"), **environment},
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        self._stack.callback(_end, process)
        return process

    def restart(self, *, kill: bool = False) -> None:
        """Restart the broker process. All connections are closed by that: connect again."""
        self.broker.restart(kill=kill)

    # -- what the broker says ---------------------------------------------------------------------------

    def ready(self, queue: str) -> int | None:
        """Return how many messages wait in a queue at this moment. None: there is no such queue."""
        with self._short() as connection:
            try:
                return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
            except NotFound:
                return None

    def consumers(self, queue: str) -> int:
        """Return how many consumers a queue has at this moment."""
        with self._short() as connection:
            return int(connection.default_channel.queue_declare(queue, passive=True).consumer_count)

    def has_exchange(self, name: str) -> bool:
        """Return whether the broker has this exchange."""
        return self._has("exchanges", name)

    def has_queue(self, name: str) -> bool:
        """Return whether the broker has this queue. It does not count as a use of the queue, other than `ready`."""
        return self._has("queues", name)

    def _has(self, kind: str, name: str) -> bool:
        try:
            self.management.get(kind, self.vhost, name)
        except LookupError:
            return False
        return True

    def queue(self, name: str) -> Mapping[str, Any]:
        """Return what the management API knows about a queue. Its figures lag by up to a second: use `eventually`."""
        found: Mapping[str, Any] = self.management.get("queues", self.vhost, name)
        return found

    def unacked(self, queue: str) -> int:
        """Return how many messages were delivered and not acknowledged yet. It lags: use `eventually`."""
        return int(self.queue(queue).get("messages_unacknowledged", -1))

    def drain(self, channel: Any, queue: str) -> list[Any]:
        """Take all messages that wait, with `basic.get`, and return their bodies in order."""
        bodies = []
        while (message := channel.basic_get(queue, no_ack=True)) is not None:
            bodies.append(message.body)
        return bodies

    # -- inside -----------------------------------------------------------------------------------------

    @contextmanager
    def _short(self) -> Iterator[Connection]:
        connection = Connection(self.url, connect_timeout=CONNECT_TIMEOUT_S)
        try:
            connection.connect()
            yield connection
        finally:
            self._close(connection)

    @staticmethod
    def _close(connection: Connection) -> None:
        connection.collect(socket_timeout=1)


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # it leads a session of its own: with all that it has started
    process.wait()
    if process.stdout:
        process.stdout.close()


@contextmanager
def on_stage(broker: Broker, name: str, tell: Teller, reasons: Sequence[str] = ()) -> Iterator[Stage]:
    """Make a virtual host for one lesson, and delete it afterwards with all that the lesson declared.

    `reasons`: why the settings that the reader has changed break a proof.
    """
    management, vhost = Management(broker.management_url), f"lesson-{name}"
    with ExitStack() as stack:
        _forget(management, vhost)
        management.put("vhosts", vhost)
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        management.put("permissions", vhost, management.user, body=everything)
        stack.callback(_forget, Management(broker.management_url), vhost)
        yield Stage(broker, vhost, tell, stack, reasons)


def _forget(management: Management, vhost: str) -> None:
    try:
        management.delete("vhosts", vhost)
    except LookupError:
        return
