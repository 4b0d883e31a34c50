"""All parts of a demo: in which order they start and stop, and what happens when one dies.

    database, broker  ->  tables  ->  history API, streaming app  ->  workers  ->  Flower

To stop, the streaming app comes first, so that nothing new is accepted. Then the workers write what was accepted, and
the other parts follow.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from time import monotonic, sleep

from local import leftover_processes, ports, service_parts, view_counts
from local.errors import BrokerUnreachable, DemoError, Interrupted, PartFailed, PortTaken, SupervisorUnreachable
from local.part import Part
from local.part_monitor import PartMonitor
from local.postgres import MESSAGES, Postgres
from local.processes import web_processes
from local.queue import Queue, queue_of
from local.rabbitmq import RabbitMQ
from local.rabbitmq_programs import HOW_TO_INSTALL, is_installed
from local.settings import DemoSettings
from local.shutdown import Shutdown
from local.state import State
from local.supervisor import POLL_INTERVAL_S, Supervisor
from local.terminal_output import TerminalOutput
from service.waiting import wait_until

#: Seconds for a part to start. A slow machine needs ten.
START_TIMEOUT_S = 90

#: Seconds to wait until a new queue's name is on the disk. RabbitMQ 3.10 needs three. If a version of RabbitMQ stores
#: the name elsewhere, the demo waits no longer than this. Only the first start on a state folder waits.
QUEUE_NAME_TIMEOUT_S = 6

#: Seconds between two checks of a running demo. supervisord checks for dead parts after every request, so this is how
#: long a part may stay dead. Ten checks a second took 4 % of a core (docs/decisions/0003-supervisor.md).
MONITOR_INTERVAL_S = 0.25

#: `make` passes SIGTERM on to a program that may have got it already. Two signals within this time (seconds) count as
#: one.
SAME_SIGNAL_S = 1


class Stack:
    """One demo, from its first process to its last."""

    def __init__(self, settings: DemoSettings, state: State, output: TerminalOutput) -> None:
        self.settings = settings
        self.state = state
        self.output = output
        self._stop_requested_at: float | None = None
        self._stop_now = False
        self.rabbitmq: RabbitMQ | None = None
        self.postgres: Postgres | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def ask_to_stop(self) -> None:
        """Handle Ctrl-C or SIGTERM: the first stops everything in order, a later one at once."""
        now = monotonic()
        if self._stop_requested_at is None:
            self._stop_requested_at = now
        elif now - self._stop_requested_at > SAME_SIGNAL_S:
            self._stop_now = True

    # -- start ----------------------------------------------------------------------------------------

    def end_leftovers(self) -> None:
        """End what an earlier demo on this state left behind (after kill -9), and make the folders again."""
        data = self.state.folder / "postgres"
        if ended := leftover_processes.end_all(self.state.folder):
            self.output.print(f"ended {ended} processes that an earlier demo left behind")
        # Its process id may by chance belong to another process now. No process works in that folder any more.
        (data / "postmaster.pid").unlink(missing_ok=True)
        self.state.remove_runtime_files()
        self.state.make_subfolders()

    def start(self) -> None:
        """Start everything and return when views can be recorded. Raises DemoError, or Interrupted when
        asked to stop.
        """
        if why := ports.bind_error(self.settings.port):
            raise PortTaken(f"PORT: {why}")
        self.supervisor = Supervisor(self.state)
        self._launch_supervisor()
        self._start_broker()
        self._start_database()
        self.addresses = self._addresses()
        self.queue: Queue = queue_of(self.addresses.broker_url, self.addresses.management_url)
        # One thing after another, because RabbitMQ starts at the same time and uses a whole core for five seconds.
        self._upgrade_tables()
        self.supervisor.add(self.web())
        self.supervisor.add(service_parts.history_api(self.state, self.addresses))
        for number in range(1, self.settings.workers + 1):
            self.supervisor.add(self.worker(f"{service_parts.WORKER}{number}"))
        if self.rabbitmq:
            self._wait("RabbitMQ", self.rabbitmq.is_ready, "rabbitmq")
        self._write_addresses()
        self._wait("a history worker", self._is_consumed, f"{service_parts.WORKER}1")
        self._wait("the streaming app", self._web_is_ready, service_parts.WEB)
        if self.rabbitmq:
            rabbitmq, give_up_at = self.rabbitmq, monotonic() + QUEUE_NAME_TIMEOUT_S
            self._wait("RabbitMQ's disk", lambda: rabbitmq.queue_names_on_disk() or monotonic() > give_up_at)
        if self.has_flower:
            self.supervisor.add(service_parts.flower(self.state, self.addresses))

    # proof/chaos overrides these methods to put a proxy between the parts.

    def web(self) -> Part:
        """Return the streaming app."""
        return service_parts.web(self.state, self.addresses, self.settings.videos)

    def worker(self, name: str) -> Part:
        """Return one history worker."""
        return service_parts.worker(self.state, name, self.addresses)

    def own_rabbitmq(self) -> RabbitMQ:
        """Return the broker, not started yet."""
        return RabbitMQ(self.state)

    @property
    def learner_mode(self) -> bool:
        """Whether the messages are in PostgreSQL."""
        if self.settings.amqp_url:
            return self.settings.amqp_url.startswith("pgmq")
        return self.rabbitmq is None

    @property
    def has_flower(self) -> bool:
        """Whether Flower runs. It needs Celery's events and remote control, which need RabbitMQ."""
        return not self.learner_mode

    def _launch_supervisor(self) -> None:
        self._process = self.supervisor.launch()
        process = self._process

        def answers() -> bool:
            try:
                self.supervisor.status()
            except SupervisorUnreachable:
                if process.poll() is not None:
                    raise PartFailed(self.state.end_of_log("supervisord", "did not start")) from None
                if self._stop_requested_at is not None:
                    raise Interrupted("stopped while it was starting") from None
                return False
            return True

        if not wait_until(answers, START_TIMEOUT_S, poll_interval_s=0.02):
            raise PartFailed(self.state.end_of_log("supervisord", "did not start"))

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
        self._wait("PostgreSQL", self.postgres.is_ready, "postgres")
        self.postgres.create_databases(learner_mode=self.learner_mode)

    def _addresses(self) -> service_parts.Addresses:
        chosen = ports.allocate(self.state, ("history_api", "flower"))
        if self.settings.amqp_url:
            broker_url = self.settings.amqp_url
        elif self.rabbitmq:
            broker_url = self.rabbitmq.url
        else:
            broker_url = self._own_postgres().broker_url()
        return service_parts.Addresses(
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
        with self.state.open_log("migrations") as log:
            process = subprocess.Popen(
                service_parts.migrations(),
                env=service_parts.service_environment(self.addresses)
                | {leftover_processes.STATE_MARK: str(self.state.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait("the tables", lambda: process.poll() is not None)
        if process.returncode:
            raise PartFailed(self.state.end_of_log("migrations", f"ended with status {process.returncode}"))

    def _write_addresses(self) -> None:
        """Write the addresses of the parts to a file for the command line."""
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

    def _is_consumed(self) -> bool:
        """Return whether a worker consumes messages."""
        try:
            return self.queue.consumers() > 0
        except BrokerUnreachable:
            return False

    def _wait(self, what: str, is_ready: Callable[[], bool], part: str = "supervisord") -> None:
        """Wait until `is_ready` returns True. Raises PartFailed if a part gives up or the deadline passes, Interrupted
        on Ctrl-C.

        `part`: the part whose log explains a failure.
        """

        def checked() -> bool:
            if is_ready():
                return True
            if self._stop_requested_at is not None:
                raise Interrupted("stopped while it was starting")
            failed = [part.name for part in self.supervisor.status().values() if part.failed]
            if failed:
                raise PartFailed(self.state.end_of_log(failed[0], "did not start"))
            return False

        with self.output.waiting_for(what):
            if not wait_until(checked, START_TIMEOUT_S, poll_interval_s=POLL_INTERVAL_S):
                late = f"is what {what} comes from, which was not there after {START_TIMEOUT_S} s"
                raise PartFailed(self.state.end_of_log(part, late))

    def _web_is_ready(self) -> bool:
        """Return whether every process of the streaming app accepts views, because any of them may get a request."""
        processes = web_processes(self.supervisor.status()[service_parts.WEB].pid)[1:]
        return bool(processes) and view_counts.connected_processes(self.addresses.web_url) >= len(processes)

    # -- while it runs, and when it stops --------------------------------------------------------------

    def watch(self) -> None:
        """Watch the parts until the demo is asked to stop."""
        monitor = PartMonitor(self.supervisor, self.output, self._launch_supervisor)
        while self._stop_requested_at is None:
            monitor.check(stopping=lambda: self._stop_requested_at is not None)
            sleep(MONITOR_INTERVAL_S)

    def stop(self) -> None:
        """Stop everything: in order, or at once when asked a second time. Returns when no process is left."""
        if self._process:
            Shutdown(self.supervisor, self.output, stop_now=lambda: self._stop_now).run(self._process)
        leftover_processes.end_all(self.state.folder)
        self.state.remove_runtime_files()
