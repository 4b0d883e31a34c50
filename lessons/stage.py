"""Where a lesson plays: a virtual host of its own on a real broker, a voice, and a proof that cannot be talked round.

What a lesson claims is proved with what the broker says: a queue's length, a message that came, one that came back, a
figure of the management API. Never with what the script believes that it has done.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, TypeVar

from amqp.exceptions import NotFound
from kombu import Connection, Message

from flixtrail.local.environment import clean
from flixtrail.local.program import ROOT
from lessons.broker import Broker
from lessons.errors import NotProved
from lessons.management import Management

T = TypeVar("T")

#: For what the broker measures itself: it collects its figures four times a second, and publishes them a little later.
EVENTUALLY_S = 10
LOOK_EVERY_S = 0.05
CONNECT_TIMEOUT_S = 5


@dataclass(frozen=True)
class Said:
    """A sentence."""

    text: str


@dataclass(frozen=True)
class Moved:
    """A message that went a way: `publisher`, `(an exchange)`, `[a queue]`, `consumer`."""

    message: str
    way: tuple[str, ...]


@dataclass(frozen=True)
class Proved:
    """Something that the broker confirmed. `myth`: what is often believed instead."""

    claim: str
    seen: str
    myth: str | None = None


Event = Said | Moved | Proved
Teller = Callable[[Event], None]


class Stage:
    """One lesson's. Use it with `on_stage`, which gives back everything in the end."""

    def __init__(self, broker: Broker, vhost: str, tell: Teller, stack: ExitStack) -> None:
        self.broker = broker
        self.vhost = vhost
        self.management = Management(broker.management_url)
        #: (3, 10, 8): some things differ from version to version.
        self.version = self.management.version
        self._tell = tell
        self._stack = stack

    # -- the voice --------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """One or two sentences about what comes now."""
        self._tell(Said(text))

    def moves(self, message: str, *way: str) -> None:
        """Draw a message on its way: `stage.moves("view", "publisher", "(views)", "[history]", "worker")`."""
        self._tell(Moved(message, way))

    # -- the proof --------------------------------------------------------------------------------------

    def prove(self, claim: str, seen: T, expected: T) -> None:
        """`seen` comes from the broker. Raises NotProved when it is not what the lesson says."""
        self._prove(claim, seen, expected, None)

    def really(self, myth: str, claim: str, seen: T, expected: T) -> None:
        """Prove what is true instead of what is often believed: a "Really?" box."""
        self._prove(claim, seen, expected, myth)

    def eventually(self, look: Callable[[], T], expected: object, within_s: float = EVENTUALLY_S) -> T:
        """What `look` gives, once it is as expected; or what it gave last. For figures that lag. To be proved then."""
        deadline = monotonic() + within_s
        while (seen := look()) != expected and monotonic() < deadline:
            sleep(LOOK_EVERY_S)
        return seen

    def _prove(self, claim: str, seen: object, expected: object, myth: str | None) -> None:
        if seen != expected:
            raise NotProved(f"{claim}: expected {expected!r}, and the broker says {seen!r}")
        self._tell(Proved(claim, str(seen), myth))

    # -- what a lesson works with -----------------------------------------------------------------------

    @property
    def url(self) -> str:
        """For AMQP, with this lesson's virtual host."""
        return f"{self.broker.amqp_url}/{self.vhost}"

    def connect(self, name: str = "lesson", **options: Any) -> Connection:
        """An open connection, under this name in the broker's list; closed when the lesson is over."""
        options.setdefault("transport_options", {}).setdefault("client_properties", {"connection_name": name})
        connection = Connection(self.url, connect_timeout=CONNECT_TIMEOUT_S, **options)
        connection.connect()
        self._stack.callback(self._close, connection)
        return connection

    def spawn(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """A Python process of its own, for what has to die: `stage.spawn("-m", "lessons.hands.holder")`.

        It finds the broker in AMQP_URL; its standard output can be read; it is killed when the lesson is over.
        """
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**clean(AMQP_URL=self.url, PYTHONUNBUFFERED="1"), **environment},
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        self._stack.callback(_end, process)
        return process

    def restart(self, *, kill: bool = False) -> None:
        """Restart the broker, really. Every connection is gone afterwards: connect again."""
        self.broker.restart(kill=kill)

    # -- what the broker says ---------------------------------------------------------------------------

    def ready(self, queue: str) -> int | None:
        """Messages that wait in a queue, as the broker counts them at this moment; None: there is no such queue."""
        with self._short() as connection:
            try:
                return int(connection.default_channel.queue_declare(queue, passive=True).message_count)
            except NotFound:
                return None

    def consumers(self, queue: str) -> int:
        """Who consumes from a queue, at this moment."""
        with self._short() as connection:
            return int(connection.default_channel.queue_declare(queue, passive=True).consumer_count)

    def has_exchange(self, name: str) -> bool:
        """Whether the broker knows it."""
        try:
            self.management.get("exchanges", self.vhost, name)
        except LookupError:
            return False
        return True

    def queue(self, name: str) -> Mapping[str, Any]:
        """All that the management API says of a queue; its figures lag by up to a second: use `eventually`."""
        found: Mapping[str, Any] = self.management.get("queues", self.vhost, name)
        return found

    def unacked(self, queue: str) -> int:
        """Delivered and not yet acknowledged; lags: use `eventually`."""
        return int(self.queue(queue).get("messages_unacknowledged", -1))

    def get(self, channel: Any, queue: str, *, no_ack: bool = True) -> Message | None:
        """Take one message, or None when the queue is empty: `basic.get`."""
        return channel.basic_get(queue, no_ack=no_ack)

    def drain(self, channel: Any, queue: str) -> list[Any]:
        """The bodies of all messages that wait, in their order; the queue is empty then."""
        bodies = []
        while (message := self.get(channel, queue)) is not None:
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
def on_stage(broker: Broker, name: str, tell: Teller) -> Iterator[Stage]:
    """A virtual host of its own, for one lesson: whatever it declares is gone afterwards."""
    management, vhost = Management(broker.management_url), f"lesson-{name}"
    with ExitStack() as stack:
        _forget(management, vhost)
        management.put("vhosts", vhost)
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        management.put("permissions", vhost, management.user, body=everything)
        stack.callback(_forget, Management(broker.management_url), vhost)
        yield Stage(broker, vhost, tell, stack)


def _forget(management: Management, vhost: str) -> None:
    try:
        management.delete("vhosts", vhost)
    except LookupError:
        return
