"""What is put to the test: the stack of `make demo`, with a proxy between each pair of parts.

streaming app --web-broker--> RabbitMQ --worker-broker--> history workers --worker-database--> PostgreSQL
streaming app --web-history--> history API
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console

from flixtrail.local import ports, services
from flixtrail.local.part import Part
from flixtrail.local.postgres import ADMINISTRATOR, HISTORY, PORT
from flixtrail.local.rabbitmq import RabbitMQ
from flixtrail.local.settings import DemoSettings
from flixtrail.local.stack import Stack
from flixtrail.local.state import State
from flixtrail.local.telling import Teller
from proof.chaos.broker import BrokerInContainer, PrivateBroker
from proof.chaos.proxy import ProxyProcess

ROOT = Path(__file__).parent.parent.parent
WEB_PROCESSES = 2
WORKERS = 3
#: The real worker, except that some events kill it.
APP = "proof.chaos.killing"


class LogTeller(Teller):
    """Says it to a log: what the stack has to say about parts that die is no news here."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._console = Console(file=path.open("a"), highlight=False, soft_wrap=True)


class ChaosStack(Stack):
    """A demo with three workers, whose parts meet through `proxy`. `image`: RabbitMQ's, instead of a private node."""

    broker: PrivateBroker | BrokerInContainer

    def __init__(self, state: State, videos: Path, proxy: ProxyProcess, image: str | None = None) -> None:
        state.prepare()
        self._links = ports.keep(state, ("web_broker", "worker_broker", "worker_database", "web_history", "web"))
        settings = DemoSettings(port=self._links["web"], workers=WORKERS, broker="rabbitmq", videos=videos)
        super().__init__(settings, state, LogTeller(state.log("stack")))
        self._proxy = proxy
        self._image = image
        # The parts find `proof` as they find the product: it is not installed.
        os.environ["PYTHONPATH"] = str(ROOT)

    @property
    def has_flower(self) -> bool:
        """Nobody looks."""
        return False

    @property
    def database_url(self) -> str:
        """PostgreSQL's own address, for those who look on."""
        return self.addresses.database_url

    @property
    def broker_url(self) -> str:
        """RabbitMQ's own address, for those who look on."""
        return self.addresses.broker_url

    def own_rabbitmq(self) -> RabbitMQ:
        self.broker = BrokerInContainer(self.state, self._image) if self._image else PrivateBroker(self.state)
        return self.broker

    def _start_broker(self) -> None:
        if self._image is None:
            super()._start_broker()
            return
        # Needs no RabbitMQ on this machine, and brings its own port mapper.
        self.rabbitmq = self.own_rabbitmq()
        self.rabbitmq.configure()
        self.supervisor.add(self.rabbitmq.part())

    def stop(self) -> None:
        super().stop()
        if self.rabbitmq:
            self.broker.close()

    def _addresses(self) -> services.Addresses:
        addresses = super()._addresses()
        links, postgres = self._links, self._own_postgres()
        amqp_port = urlsplit(addresses.broker_url).port
        assert amqp_port, "a private node has one"  # noqa: S101
        self._proxy.serve("web-broker", links["web_broker"], amqp_port)
        self._proxy.serve("worker-broker", links["worker_broker"], amqp_port)
        self._proxy.serve("worker-database", links["worker_database"], str(postgres.sockets / f".s.PGSQL.{PORT}"))
        self._proxy.serve("web-history", links["web_history"], addresses.history_api_port)
        return addresses

    def web(self) -> Part:
        # What processes leave in /tmp that are killed goes with the run.
        temporary = self.state.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        return _with(
            super().web(),
            TMPDIR=str(temporary),
            WEB_PROCESSES=str(WEB_PROCESSES),
            AMQP_URL=self._through("web_broker"),
            HISTORY_API_URL=f"http://127.0.0.1:{self._links['web_history']}",
        )

    def worker(self, name: str) -> Part:
        part = super().worker(name)
        argv = tuple(APP if argument == "history_worker.app" else argument for argument in part.argv)
        database_url = f"postgresql://{ADMINISTRATOR}@127.0.0.1:{self._links['worker_database']}/{HISTORY}"
        part = _with(part, AMQP_URL=self._through("worker_broker"), DATABASE_URL=database_url)
        return dataclasses.replace(part, argv=argv)

    def _through(self, link: str) -> str:
        """The broker's address by way of the proxy."""
        port = urlsplit(self.addresses.broker_url).port
        return self.addresses.broker_url.replace(f":{port}/", f":{self._links[link]}/")


def _with(part: Part, **environment: str) -> Part:
    return dataclasses.replace(part, environment={**part.environment, **environment})
