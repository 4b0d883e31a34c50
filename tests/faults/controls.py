"""Where a negative control is played: a virtual host and a database of its own, and an account of what was accepted.

Publisher and worker are the product's, except for the safeguard that is taken away.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import psutil
import psycopg
import urllib3
from amqp.exceptions import NotFound
from celery import Celery
from kombu import Connection
from kombu.message import Message
from kombu.transport.base import StdChannel
from sqlalchemy import make_url

from history_worker.store.migrations.__main__ import upgrade
from history_worker.store.writer import ERASURE_LOCK, write
from local.queue import queue_of
from proof.chaos.guests import InjectedMessage, as_sent
from proof.chaos.invariants import Violation, check
from proof.chaos.ledger import ACCEPTED, CONFIRMED, Attempt, Event, ExpectedDeadLetter, Ledger
from proof.chaos.proxy import ProxyProcess
from proof.chaos.queues import Queues
from service.database import connect
from streaming_app.recording.broker import BrokerLink
from streaming_app.recording.outbox import Outbox
from streaming_app.recording.publisher import Publisher
from tests.conftest import Demo
from tests.demo import ROOT, environment, free_port
from tests.waiting import until
from view_events import topology
from view_events.event import VERSION, ViewEvent, decode, new_event_id

#: Events that travel in one message.
EVENTS = 3
OUTBOX_BYTES = 1024 * 1024
#: Two workers start at the same time, on a machine that may have other work.
STARTED_S = 40
TEMPLATE = "flixtrail_controls"

#: Plays a scenario, and says what is lost (or counted twice) unless the safeguard is there: ids of events, or marks.
Scenario = Callable[["Place"], Sequence[str]]


@dataclass(frozen=True)
class Outcome:
    """What was `at_stake` in a scenario, and what the check found after it."""

    at_stake: Sequence[str]
    violations: Sequence[Violation]

    @property
    def named(self) -> list[tuple[str, str]]:
        """Kind and id of each violation."""
        return sorted((violation.kind, violation.id) for violation in self.violations)

    def every(self, *kinds: str) -> list[tuple[str, str]]:
        """What `named` is when everything that was at stake is named as each of these kinds."""
        assert self.at_stake, "nothing was at stake"
        return sorted((kind, name) for name in self.at_stake for kind in kinds)


class Places:
    """Makes places on the broker and the PostgreSQL of a demo, and removes them again."""

    def __init__(self, demo: Demo, folder: Path) -> None:
        document = demo.running().document
        self.broker: dict[str, str] = document["broker"]
        self.database_url: str = document["database"]["url"]
        self.folder = folder
        self._numbers = count()
        self.create_database(TEMPLATE, "template0")
        upgrade(self.database(TEMPLATE))
        self.proxy = ProxyProcess()

    def play(self, *scenarios: Scenario) -> list[Outcome]:
        """Play these scenarios side by side, each in a place of its own, and check what came of each."""
        with ThreadPoolExecutor(len(scenarios)) as pool:
            return list(pool.map(self._play, scenarios))

    def _play(self, scenario: Scenario) -> Outcome:
        place = Place(self, f"control-{next(self._numbers)}")
        try:
            at_stake = scenario(place)
            place.store_the_rest()
            return Outcome(at_stake, check(place.ledger, place.database_url, place.dead_letters()))
        finally:
            place.remove()

    def close(self) -> None:
        self.proxy.close()
        self.drop_database(TEMPLATE)

    def database(self, name: str) -> str:
        """As SQLAlchemy wants it."""
        url = make_url(self.database_url).set(drivername="postgresql+psycopg", database=name)
        return url.render_as_string(hide_password=False)

    def create_database(self, name: str, template: str = TEMPLATE) -> None:
        self.drop_database(name)
        self._in_database(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')

    def drop_database(self, name: str) -> None:
        self._in_database(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def manage(self, method: str, path: str, document: object = None) -> Any:
        """The broker's management API."""
        parts = urlsplit(self.broker["management_url"])
        headers = urllib3.make_headers(basic_auth=f"{parts.username}:{parts.password}")
        url = f"http://{parts.hostname}:{parts.port}/api{path}"
        with urllib3.PoolManager(timeout=20, retries=False, headers=headers) as http:
            answer = http.request(method, url, json=document) if document else http.request(method, url)
            assert answer.status < 300, (method, path, answer.status, answer.data)
            return answer.json() if answer.data else None

    def _in_database(self, statement: str) -> None:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(statement.encode())


class Place:
    """A virtual host with the topology in it, a database with the tables, an outbox folder; nobody else uses them."""

    def __init__(self, places: Places, name: str) -> None:
        self._places = places
        self.name = name
        self.ledger = Ledger()
        self.folder = places.folder / name
        self.outbox = self.folder / "outbox"
        self.outbox.mkdir(parents=True)
        self._vhost = f"/vhosts/{quote(name, safe='')}"
        places.manage("PUT", self._vhost, {"description": "a negative control"})
        user = urlsplit(places.broker["url"]).username
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        places.manage("PUT", f"/permissions/{name}/{user}", everything)
        places.create_database(name)
        self.database_url = places.database(name)
        #: The broker's own address, and the one by way of the proxy.
        parts = urlsplit(places.broker["url"])
        assert parts.port
        self.broker_url = parts._replace(path=f"/{name}").geturl()
        proxied = free_port()
        places.proxy.serve(name, proxied, parts.port)
        self.proxied_url = self.broker_url.replace(f":{parts.port}/", f":{proxied}/")
        self._queues = Queues(self.broker_url, queue_of(self.broker_url, None))

    def remove(self) -> None:
        self._places.proxy.cut(self.name)
        self._places.manage("DELETE", self._vhost)
        self._places.drop_database(self.name)

    # -- the network between the broker and who goes by the proxy ------------------------------------------

    def swallow(self, direction: str) -> None:
        self._places.proxy.swallow(self.name, direction)

    def let_pass(self, direction: str) -> None:
        self._places.proxy.delay(self.name, direction, 0)

    def cut(self) -> None:
        self._places.proxy.cut(self.name)

    def heal(self) -> None:
        self._places.proxy.heal(self.name)

    # -- publishing ------------------------------------------------------------------------------------

    def declare(self) -> None:
        with Connection(self.broker_url) as connection:
            topology.declare(connection)

    def link(self, kind: type[BrokerLink] = BrokerLink) -> BrokerLink:
        """One by way of the proxy."""
        celery = Celery("streaming_app", set_as_current=False)
        celery.config_from_object("celeryconfig")
        celery.conf.broker_url = self.proxied_url
        return kind(celery)

    @contextmanager
    def publishing(self, link: BrokerLink) -> Iterator[Publisher]:
        """A publisher that is connected. In the end the outbox is empty, and it stops."""
        outbox = Outbox(self.outbox, OUTBOX_BYTES)
        publisher = Publisher(link, outbox)
        publisher.start()
        try:
            until(lambda: publisher.connected, 20, what="the publisher to connect")
            yield publisher
            until(lambda: not outbox.events, 20, what="the outbox to be empty")
        finally:
            publisher.stop()

    def accept(self, publish: Callable[[list[ViewEvent]], object]) -> list[str]:
        """Have a few events published. This returns when they are accepted, and takes that down."""
        viewer_id, playback_id = f"viewer-{uuid4()}", str(uuid4())
        events = [
            Event(
                event_id=str(new_event_id()),
                viewer_id=viewer_id,
                video_id="clip-1",
                playback_id=playback_id,
                kind="progress",
                position_s=float(second),
                at=datetime.now(UTC),
            )
            for second in range(EVENTS)
        ]
        sending, began = self.ledger.send(events), datetime.now(UTC)
        publish(decode(map(as_sent, events), VERSION))
        sending.attempts.append(Attempt(began, datetime.now(UTC), ACCEPTED))
        self.ledger.accept(sending)
        return [event.event_id for event in events]

    def send(self) -> list[str]:
        """A few events in one message that the broker has confirmed."""
        link = self.link()
        link.connect()
        try:
            return self.accept(link.send)
        finally:
            link.discard()

    def invite(self, guest: InjectedMessage) -> None:
        """Poison, and what is good beside it."""
        letters = [ExpectedDeadLetter(what) for what in guest.poison.values()]
        self.ledger.poison.update(zip(guest.poison, letters, strict=True))
        sending = self.ledger.send(guest.events)
        attempt = guest.publish(self.broker_url)
        assert attempt.answer == CONFIRMED, attempt
        sending.attempts.append(attempt)
        self.ledger.accept(sending)
        for letter in letters:
            letter.confirmed = True

    # -- writing ---------------------------------------------------------------------------------------

    @contextmanager
    def worker(self, app: str = "history_worker.app") -> Iterator[Worker]:
        """A worker with one process in its pool, by way of the proxy; it consumes. Killed in the end."""
        worker = Worker(app, self.folder / "worker.log", AMQP_URL=self.proxied_url, DATABASE_URL=self.database_url)
        try:
            until(lambda: worker.lives() and self.consumers(), STARTED_S, what="the worker to consume", every_s=0.1)
            yield worker
        except AssertionError as error:
            raise AssertionError(f"{error}\n{worker.said()}") from error
        finally:
            worker.kill()

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Who writes waits, as for an erase that is under way."""
        with psycopg.connect(self._psycopg_url) as connection:
            connection.execute(f"SELECT pg_advisory_xact_lock({ERASURE_LOCK})")
            yield

    def until_one_waits(self) -> None:
        """A worker has begun to write."""
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()"
        until(lambda: self.ask(waiting), 20, what="a worker to write")

    def until_acknowledged(self) -> None:
        """The broker has been told that a message is done."""
        path = f"/queues/{self.name}/{topology.HISTORY.name}"

        def acknowledged() -> bool:
            return bool(self._places.manage("GET", path).get("message_stats", {}).get("ack"))

        until(acknowledged, 20, what="the message to be acknowledged", every_s=0.1)

    def stored(self, ids: Iterable[str]) -> bool:
        """Whether all of these are there, however often."""
        wanted = set(ids)
        query = "SELECT count(DISTINCT event_id) FROM view_events WHERE event_id = ANY(%s::uuid[])"
        return self.ask(query, list(wanted)) == len(wanted)

    def store_the_rest(self) -> None:
        """What is still in the queue, as another worker would. Afterwards nobody holds anything."""
        until(lambda: not self.consumers(), 20, what="the broker to see that its worker is gone")
        engine = connect(self.database_url, pool_size=1)
        try:
            with self.channel() as channel:
                while message := topology.HISTORY(channel).get():
                    args, kwargs, _ = message.decode()
                    write(engine, decode(args[0], kwargs["version"]))
                    message.ack()
        finally:
            engine.dispose()

    def dead_letters(self) -> list[Message]:
        return self._queues.dead_letters()

    def waiting(self) -> int:
        """Messages in the queue that nobody holds."""
        with self.channel() as channel:
            return int(topology.HISTORY(channel).queue_declare(passive=True).message_count)

    def consumers(self) -> int:
        """Workers that take messages. One that is gone is counted until what it held waits again."""
        with self.channel() as channel:
            try:
                return int(topology.HISTORY(channel).queue_declare(passive=True).consumer_count)
            except NotFound:
                return 0  # no worker has declared it yet

    @contextmanager
    def channel(self) -> Iterator[StdChannel]:
        with Connection(self.broker_url) as connection, connection.channel() as channel:
            yield channel

    def change(self, statement: str) -> None:
        """Alter the database."""
        with psycopg.connect(self._psycopg_url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def ask(self, query: str, *values: object) -> int:
        """The one number that a query gives."""
        with psycopg.connect(self._psycopg_url) as connection:
            row = connection.execute(query.encode(), values or None).fetchone()
            assert row
            return int(row[0])

    @property
    def _psycopg_url(self) -> str:
        return self.database_url.replace("+psycopg", "", 1)


class Worker:
    """A Celery worker in a process of its own."""

    def __init__(self, app: str, log: Path, **settings: str) -> None:
        self._log = log
        options = ("worker", "-n", "control@%h", "-c", "1", "--without-mingle", "--without-gossip")
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", app, *options],
                env=environment(**settings),
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def lives(self) -> bool:
        """True; fails when it has ended by itself."""
        assert self._process.poll() is None, f"the worker ended with {self._process.returncode}"
        return True

    def freeze(self) -> None:
        """The parent: it acknowledges nothing. Its pool goes on."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill_pool(self) -> None:
        """The processes that write."""
        for child in psutil.Process(self._process.pid).children():
            child.kill()

    def stop(self) -> None:
        """As a supervisor does: it finishes, acknowledges and ends."""
        self._process.terminate()
        self._process.wait(20)

    def kill(self) -> None:
        """Parent and pool, all at once."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGSTOP)  # it makes no new ones
            for process in psutil.Process(self._process.pid).children(recursive=True):
                process.kill()
            self._process.kill()
        self._process.wait(10)
