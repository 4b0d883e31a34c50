"""All parts together: the order in which they start, what happens when one dies, the order in which they stop.

    database, broker  ->  tables  ->  history API, streaming app  ->  workers  ->  Flower

They stop the other way round, the streaming app first: nothing new is accepted, then what was accepted is written.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from time import monotonic, sleep

from flixtrail.local import counts, leftovers, ports, services
from flixtrail.local.errors import DemoError, Interrupted, PartFailed, PortTaken
from flixtrail.local.guard import Guard
from flixtrail.local.installed import HOW_TO_INSTALL, is_installed
from flixtrail.local.ladder import Ladder
from flixtrail.local.part import Part
from flixtrail.local.postgres import MESSAGES, Postgres
from flixtrail.local.queue import Queue, queue_of
from flixtrail.local.rabbitmq import RabbitMQ
from flixtrail.local.settings import DemoSettings
from flixtrail.local.state import State
from flixtrail.local.supervisor import POLL_S, Supervisor, SupervisorAway, tree
from flixtrail.local.telling import Teller

#: A cold machine needs ten seconds; past this somebody should look at the log.
START_DEADLINE_S = 90

#: A new queue's name is on the disk after three seconds (RabbitMQ 3.10). A version that keeps it elsewhere is not
#: waited for any longer. Only the first start on a state folder has to wait at all.
NAME_ON_DISK_S = 6

#: `make` passes SIGTERM on to a program that may have got it already: within this time two are one.
SAME_REQUEST_S = 1


class Stack:
    """One demo, from its first process to its last."""

    def __init__(self, settings: DemoSettings, state: State, teller: Teller) -> None:
        self.settings = settings
        self.state = state
        self.teller = teller
        self._asked_to_stop: float | None = None
        self._hurry = False
        self.rabbitmq: RabbitMQ | None = None
        self.postgres: Postgres | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def ask_to_stop(self) -> None:
        """Ctrl-C or SIGTERM: the first stops everything in order, a later one at once."""
        now = monotonic()
        if self._asked_to_stop is None:
            self._asked_to_stop = now
        elif now - self._asked_to_stop > SAME_REQUEST_S:
            self._hurry = True

    # -- start ----------------------------------------------------------------------------------------

    def clear(self) -> None:
        """End what an earlier demo on this state left behind (after kill -9), and make the folders anew."""
        data = self.state.folder / "postgres"
        ended = leftovers.end(leftovers.processes(self.state.folder, works_in=data))
        if ended:
            self.teller.say(f"ended {ended} processes that an earlier demo left behind")
        # It may name a process that has its number by chance. Nothing works in that folder now.
        (data / "postmaster.pid").unlink(missing_ok=True)
        self.state.forget()
        self.state.prepare()

    def start(self) -> None:
        """Start everything; returns when views can be recorded. Raises DemoError, Interrupted when asked to stop."""
        port = self.settings.port
        if not ports.is_free(port):
            raise PortTaken(
                f"PORT: {port} on 127.0.0.1 is taken by another program. Choose another: PORT={port + 1} make demo"
            )
        self.supervisor = Supervisor(self.state)
        self._launch_supervisor()
        self._start_broker()
        self._start_database()
        self.addresses = self._addresses()
        self.queue: Queue = queue_of(self.addresses.broker_url, self.addresses.management_url)
        # One thing after another beside RabbitMQ, which takes a core for itself for five seconds.
        self._upgrade_tables()
        self.supervisor.add(self.web())
        self.supervisor.add(services.history_api(self.state, self.addresses))
        for number in range(1, self.settings.workers + 1):
            self.supervisor.add(self.worker(f"{services.WORKER}{number}"))
        if self.rabbitmq:
            self._wait("RabbitMQ", self.rabbitmq.is_ready)
        self._publish()
        self._wait("a history worker", lambda: self.queue.consumers() > 0)
        self._wait("the streaming app", self._web_is_ready)
        if self.rabbitmq:
            rabbitmq, given_up_at = self.rabbitmq, monotonic() + NAME_ON_DISK_S
            self._wait("RabbitMQ's disk", lambda: rabbitmq.knows_its_queues() or monotonic() > given_up_at)
        if self.has_flower:
            self.supervisor.add(services.flower(self.state, self.addresses))

    # Overridden by who needs it a little different: proof/chaos puts a proxy between the parts.

    def web(self) -> Part:
        """The streaming app."""
        return services.web(self.state, self.addresses, self.settings.videos)

    def worker(self, name: str) -> Part:
        """One history worker."""
        return services.worker(self.state, name, self.addresses)

    def own_rabbitmq(self) -> RabbitMQ:
        """The broker, not started yet."""
        return RabbitMQ(self.state)

    @property
    def learner_mode(self) -> bool:
        """Whether the messages lie in PostgreSQL."""
        if self.settings.amqp_url:
            return self.settings.amqp_url.startswith("pgmq")
        return self.rabbitmq is None

    @property
    def has_flower(self) -> bool:
        """Celery's events and remote control, which Flower lives on, need RabbitMQ."""
        return not self.learner_mode

    def _launch_supervisor(self) -> None:
        self._process = self.supervisor.launch()
        deadline = monotonic() + START_DEADLINE_S
        while True:
            try:
                self.supervisor.status()
            except SupervisorAway:
                if self._process.poll() is not None or monotonic() > deadline:
                    raise PartFailed(self.state.end_of_log("supervisord", "did not start")) from None
                if self._asked_to_stop is not None:
                    raise Interrupted("stopped while it was starting") from None
                sleep(0.02)
            else:
                return

    def _start_broker(self) -> None:
        wanted = self.settings.broker
        if self.settings.amqp_url or wanted == "embedded" or (wanted == "auto" and not is_installed()):
            return
        if not is_installed():
            raise DemoError(f"BROKER: 'rabbitmq' needs rabbitmq-server on this machine. {HOW_TO_INSTALL}")
        self.rabbitmq = self.own_rabbitmq()
        self.rabbitmq.configure()
        self.supervisor.add(self.rabbitmq.epmd_part())
        self.supervisor.add(self.rabbitmq.part())

    def _start_database(self) -> None:
        if self.settings.database_url and not (self.learner_mode and not self.settings.amqp_url):
            return
        self.postgres = Postgres(self.state)
        self.postgres.initialise()
        self.supervisor.add(self.postgres.part())
        self._wait("PostgreSQL", self.postgres.is_ready)
        self.postgres.create_databases(learner_mode=self.learner_mode)

    def _addresses(self) -> services.Addresses:
        chosen = ports.keep(self.state, ("history_api", "flower"))
        if self.settings.amqp_url:
            broker_url = self.settings.amqp_url
        elif self.rabbitmq:
            broker_url = self.rabbitmq.url
        else:
            broker_url = self._own_postgres().broker_url()
        return services.Addresses(
            web_port=self.settings.port,
            history_api_port=chosen["history_api"],
            flower_port=chosen["flower"],
            broker_url=broker_url,
            management_url=self.rabbitmq.management_url if self.rabbitmq else None,
            database_url=self.settings.database_url or self._own_postgres().url(),
        )

    def _own_postgres(self) -> Postgres:
        assert self.postgres is not None, MESSAGES  # noqa: S101 (it was started, since no URL was given)
        return self.postgres

    def _upgrade_tables(self) -> None:
        with self.state.log("migrations").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603
                services.migrations(),
                env=services.service_environment(self.addresses) | {leftovers.STATE_MARK: str(self.state.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait("the tables", lambda: process.poll() is not None)
        if process.returncode:
            raise PartFailed(self.state.end_of_log("migrations", f"ended with status {process.returncode}"))

    def _publish(self) -> None:
        """Write down for the command line what runs where."""
        addresses = self.addresses
        flower = {
            "url": addresses.flower_url,
            "user": "flixtrail",
            "password": self.state.secret("flower_password"),
        }
        self.state.write(
            {
                "web": {"url": addresses.web_url},
                "history_api": {"url": addresses.history_api_url, "token": self.state.secret("history_api_token")},
                "broker": {
                    "kind": "embedded" if self.learner_mode else "rabbitmq",
                    "url": addresses.broker_url,
                    "management_url": addresses.management_url,
                },
                "database": {"url": addresses.database_url.replace("postgresql+psycopg:", "postgresql:")},
                "flower": flower if self.has_flower else None,
                "secret_key": self.state.secret("secret_key"),
                "supervisor": {"socket": str(self.supervisor.socket)},
            }
        )

    def _wait(self, what: str, there: Callable[[], bool]) -> None:
        """Until it is there. Raises PartFailed when a part gives up or the deadline passes, Interrupted on Ctrl-C."""
        deadline = monotonic() + START_DEADLINE_S
        with self.teller.waiting(what):
            while not there():
                if self._asked_to_stop is not None:
                    raise Interrupted("stopped while it was starting")
                failed = [part.name for part in self.supervisor.status().values() if part.failed]
                if failed:
                    raise PartFailed(self.state.end_of_log(failed[0], "did not start"))
                if monotonic() > deadline:
                    raise PartFailed(f"{what}: not there after {START_DEADLINE_S} s. Logs: {self.state.logs}")
                sleep(POLL_S)

    def _web_is_ready(self) -> bool:
        """Whether every process of the streaming app accepts views: nobody knows which one gets a request."""
        processes = tree(self.supervisor.status()[services.WEB].pid)[1:]
        return bool(processes) and counts.connected_processes(self.addresses.web_url) >= len(processes)

    # -- while it runs, and when it stops --------------------------------------------------------------

    def watch(self) -> None:
        """Until somebody asks to stop."""
        guard = Guard(self.supervisor, self.teller, self._launch_supervisor)
        while self._asked_to_stop is None:
            guard.look(stopping=lambda: self._asked_to_stop is not None)
            sleep(POLL_S)

    def stop(self) -> None:
        """Stop everything: in order, or at once when asked a second time. Returns when no process is left."""
        if self._process:
            ladder = Ladder(self.supervisor, self.teller, hurry=lambda: self._hurry)
            ladder.climb_down(self._process)
        leftovers.end(leftovers.processes(self.state.folder, works_in=self.state.folder / "postgres"))
        self.state.forget()
