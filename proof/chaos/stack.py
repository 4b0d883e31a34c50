"""The stack that is tested: the stack of `make demo`, with a proxy between each pair of parts.

    streaming app --web-broker--> RabbitMQ --worker-broker--> history workers --worker-database--> PostgreSQL
    streaming app --web-history--> history API
    a page in a browser --page-web--> streaming app

In learner mode, PostgreSQL also replaces RabbitMQ.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from rich.console import Console

from local import ports, service_parts
from local.part import Part
from local.postgres import ADMINISTRATOR, HISTORY, MESSAGES, PORT
from local.rabbitmq import RabbitMQ
from local.settings import DemoSettings
from local.stack import Stack
from local.state import State
from local.terminal_output import TerminalOutput
from proof.chaos.broker import BrokerInContainer, PrivateBroker
from proof.chaos.proxy import ProxyProcess

ROOT = Path(__file__).parent.parent.parent
WEB_PROCESSES = 2
WORKERS = 3
#: The real worker, except that some events kill it.
APP = "proof.chaos.killing"
#: Everything with a port of its own: each link of the proxy, and the streaming app.
LINKED = ("web_broker", "worker_broker", "worker_database", "web_history", "page_web", "web")


class LogOutput(TerminalOutput):
    """Writes to a log, because in this run it is no news that parts die."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._console = Console(file=path.open("a"), highlight=False, soft_wrap=True)


class ChaosStack(Stack):
    """A demo with three workers, whose parts are connected through `proxy`.

    `kind`: `rabbitmq`, or `embedded` for learner mode. `image`: RabbitMQ's image, instead of a private node. `broker`
    is None in learner mode.
    """

    def __init__(
        self,
        state: State,
        videos: Path,
        proxy: ProxyProcess,
        image: str | None = None,
        kind: Literal["rabbitmq", "embedded"] = "rabbitmq",
    ) -> None:
        state.make_subfolders()
        self._links = ports.allocate(state, LINKED)
        settings = DemoSettings(port=self._links["web"], workers=WORKERS, broker=kind, videos=videos)
        super().__init__(settings, state, LogOutput(state.log("stack")))
        self.videos = videos
        self._proxy = proxy
        self._image = image
        self.broker: PrivateBroker | BrokerInContainer | None = None
        # The parts must find `proof`, which is not installed.
        os.environ["PYTHONPATH"] = str(ROOT)

    @property
    def has_flower(self) -> bool:
        """Return False: no test uses Flower."""
        return False

    @property
    def database_url(self) -> str:
        """PostgreSQL's own address, for observers."""
        return self.addresses.database_url

    @property
    def broker_url(self) -> str:
        """RabbitMQ's own address, for observers."""
        return self.addresses.broker_url

    @property
    def page_url(self) -> str:
        """The streaming app's address through the proxy, for a page in a browser."""
        return f"http://127.0.0.1:{self._links['page_web']}"

    def own_rabbitmq(self) -> RabbitMQ:
        self.broker = BrokerInContainer(self.state, self._image) if self._image else PrivateBroker(self.state)
        return self.broker

    def _start_broker(self) -> None:
        if self._image is None:
            super()._start_broker()
            return
        # It needs no RabbitMQ on this machine, and has its own port mapper.
        self.rabbitmq = self.own_rabbitmq()
        self.rabbitmq.configure()
        self.supervisor.add(self.rabbitmq.part())

    def stop(self) -> None:
        super().stop()
        if self.broker:
            self.broker.close()

    def _addresses(self) -> service_parts.Addresses:
        addresses = super()._addresses()
        links, postgres = self._links, self._own_postgres()
        database = str(postgres.sockets / f".s.PGSQL.{PORT}")
        messages = database if self.learner_mode else urlsplit(addresses.broker_url).port
        assert messages, "a private node has a port"
        self._proxy.serve("web-broker", links["web_broker"], messages)
        self._proxy.serve("worker-broker", links["worker_broker"], messages)
        self._proxy.serve("worker-database", links["worker_database"], database)
        self._proxy.serve("web-history", links["web_history"], addresses.history_api_port)
        self._proxy.serve("page-web", links["page_web"], addresses.web_port)
        return addresses

    def web(self) -> Part:
        # Killed processes leave files in /tmp. Here they are deleted with the run.
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
        """Return the broker's address through the proxy."""
        if self.learner_mode:
            return f"pgmq://{ADMINISTRATOR}@127.0.0.1:{self._links[link]}/{MESSAGES}"
        port = urlsplit(self.addresses.broker_url).port
        return self.addresses.broker_url.replace(f":{port}/", f":{self._links[link]}/")


def _with(part: Part, **environment: str) -> Part:
    return dataclasses.replace(part, environment={**part.environment, **environment})
