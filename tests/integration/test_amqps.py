"""RabbitMQ with TLS: its own CA, and a certificate that it wants of every client."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
import urllib3
from celery import Celery

from lessons.harness.broker import PrivateNode
from local import connection_check, ports
from local.errors import ServerUnreachable
from local.state import State
from service import addresses
from service.settings import BrokerSettings, read
from streaming_app.recording.broker import BrokerLink
from streaming_app.recording.errors import BrokerAway
from tests.certificates import Authority, Certificate
from tests.client import Client, a_view
from tests.conftest import Demo, StartDemo, missing, need_rabbitmq
from tests.demo import ROOT, environment, program
from tests.waiting import until

pytestmark = pytest.mark.rabbitmq

#: Until a wrong setting is told.
TOLD_S = 5


@dataclass(frozen=True)
class Site:
    """A node, and all the certificates that its clients may come with."""

    plain_url: str
    port: int
    expired_port: int  #: shows an expired certificate, and speaks no AMQP
    authority: Authority
    other_authority: Authority
    client: Certificate
    expired_client: Certificate
    foreign_client: Certificate  #: signed by the other CA

    @property
    def password(self) -> str:
        found = re.search(":([^:@]+)@", self.plain_url)
        assert found is not None
        return found[1]

    def url(self, scheme: str = "amqps", port: int | None = None) -> str:
        return re.sub(r"^amqp(.*):\d+", rf"{scheme}\g<1>:{port or self.port}", self.plain_url)

    def settings(self, url: str = "", ca: Path | None = None, client: Certificate | None = None) -> dict[str, str]:
        client = client or self.client
        return {
            "AMQP_URL": url or self.url(),
            "AMQP_CA_FILE": str(ca or self.authority.file),
            "AMQP_CERT_FILE": str(client.file),
            "AMQP_KEY_FILE": str(client.key),
        }


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One node, with a listener for TLS and a plain one."""
    need_rabbitmq()
    if shutil.which("openssl") is None:
        missing("openssl on this machine")
    folder = tmp_path_factory.mktemp("amqps")
    ours, other = Authority(folder / "ca"), Authority(folder / "other")
    server = ours.issue("server", "IP:127.0.0.1,DNS:localhost")
    expired = ours.issue("expired server", "IP:127.0.0.1", expired=True)
    state = State(folder / "state")
    state.make()
    state.make_subfolders()
    node = PrivateNode(state)
    port = ports.allocate(state, ("amqps",))["amqps"]
    with (state.safe_path / "rabbitmq" / "rabbitmq.conf").open("a") as configuration:
        configuration.write(f"""
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.cacertfile = {ours.file}
ssl_options.certfile = {server.file}
ssl_options.keyfile = {server.key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
""")
    try:
        node.start()
        with expired_server(expired) as expired_port:
            yield Site(
                plain_url=f"{node.amqp_url}/flixtrail",
                port=port,
                expired_port=expired_port,
                authority=ours,
                other_authority=other,
                client=ours.issue("client"),
                expired_client=ours.issue("expired client", expired=True),
                foreign_client=other.issue("foreign client"),
            )
    finally:
        node.stop()
        state.remove_runtime_files()


@contextmanager
def expired_server(certificate: Certificate) -> Iterator[int]:
    """Its port. Nobody gets as far as to say anything to it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.file, certificate.key)
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):  # the server's end
            while True:
                client, _ = server.accept()
                with suppress(OSError), client:
                    context.wrap_socket(client, server_side=True).close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(server.getsockname()[1])
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def test_every_part_of_a_demo_speaks_tls(site: Site, start_demo: StartDemo) -> None:
    one = start_demo(BROKER="auto", **site.settings())
    alice = Client(one.url, one.token("alice"))
    alice.record([a_view()])
    until(alice.history, 60, what="the view in the history")
    until(lambda: not one.outbox(), 60, what="an empty outbox")
    until(lambda: "0 dead letters" in dead_list(one), 60, what="the dead letters")
    flower = one.status()["flower"]
    worker = until(lambda: workers_in_flower(flower), 60, what="the worker in Flower")
    (figures,) = worker.values()
    assert figures["stats"]["pool"]["max-concurrency"] == 2
    assert {queue["name"] for queue in figures["active_queues"]} >= {"history"}
    logs = "".join(log.read_text(errors="replace") for log in (one.state / "log").glob("*.log"))
    assert site.password not in logs


def dead_list(one: Demo) -> str:
    """What it prints; on a busy machine it may say that the broker did not answer in time."""
    with suppress(AssertionError):
        return one.cli("dead", "list")
    return ""


def workers_in_flower(flower: Mapping[str, Any]) -> Any:
    headers = urllib3.make_headers(basic_auth=f"{flower['user']}:{flower['password']}")
    try:
        answer = urllib3.request("GET", f"{flower['url']}/api/workers?refresh=1", headers=headers, timeout=5)
    except urllib3.exceptions.HTTPError:
        return None
    found = answer.json() if answer.status == 200 else {}
    return found if all("stats" in one and "active_queues" in one for one in found.values()) else None


#: What is wrong, and what has to be said about it.
WRONG = {
    "another CA": "signed by a CA that is not known here. Set AMQP_CA_FILE",
    "no CA": "signed by a CA that is not known here. Set AMQP_CA_FILE",
    "another name": "for another host. Use a host in AMQP_URL that the certificate names",
    "an expired certificate of the broker": "has expired. Renew it at the broker",
    "no certificate of ours": "certificate of ours.*AMQP_CERT_FILE",
    "an expired certificate of ours": "AMQP_CERT_FILE",
    "a certificate of ours that another CA signed": "not accept.*AMQP_CERT_FILE",
    "amqp to the port for TLS": "write amqps://",
    "amqps to the plain port": "does not speak TLS. Use the broker's port for TLS",
}


def wrong_settings(site: Site, what: str) -> dict[str, str]:
    right = site.settings()
    plain_port = int(site.plain_url.rpartition(":")[2].partition("/")[0])
    return {
        "another CA": site.settings(ca=site.other_authority.file),
        "no CA": {**right, "AMQP_CA_FILE": ""},
        "another name": site.settings(f"{site.url()}?server_name_indication=rabbit.example"),
        "an expired certificate of the broker": site.settings(site.url(port=site.expired_port)),
        "no certificate of ours": {**right, "AMQP_CERT_FILE": "", "AMQP_KEY_FILE": ""},
        "an expired certificate of ours": site.settings(client=site.expired_client),
        "a certificate of ours that another CA signed": site.settings(client=site.foreign_client),
        "amqp to the port for TLS": {"AMQP_URL": site.url("amqp")},
        "amqps to the plain port": site.settings(site.url(port=plain_port)),
    }[what]


def says_what_is_wrong(site: Site, state: Path, what: str, *arguments: str) -> None:
    """`flixtrail ARGUMENTS` fails, with a sentence and without the password."""
    ended = subprocess.run(
        [*program(), *arguments],
        env=environment(STATE=str(state), **wrong_settings(site, what)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = " ".join((ended.stdout + ended.stderr).split())
    assert ended.returncode == 1, said
    assert re.search(WRONG[what], said), said
    assert "Traceback" not in said
    assert site.password not in said


@pytest.mark.parametrize("what", ["another CA", "no certificate of ours", "amqp to the port for TLS"])
def test_a_demo_says_what_is_wrong_with_its_certificates(site: Site, tmp_path: Path, what: str) -> None:
    says_what_is_wrong(site, tmp_path / "state", what, "demo")


@pytest.mark.parametrize("what", WRONG)
def test_the_streaming_app_says_it_too(site: Site, what: str) -> None:
    with pytest.raises(BrokerAway, match=WRONG[what]) as away:
        BrokerLink(celery_of(wrong_settings(site, what))).connect()
    assert site.password not in str(away.value)


@pytest.mark.parametrize("what", WRONG)
def test_it_is_told_in_time(site: Site, what: str) -> None:
    url, began = whole_address(wrong_settings(site, what)), monotonic()
    with pytest.raises(ServerUnreachable, match=WRONG[what]):
        connection_check.broker(url)
    # Without the start of the program, which is slow on a busy machine.
    assert monotonic() - began < TOLD_S


def whole_address(settings: Mapping[str, str]) -> str:
    return read(BrokerSettings, settings).amqp_url


def celery_of(settings: Mapping[str, str]) -> Celery:
    url, tls = addresses.connection_options(whole_address(settings))
    return Celery(set_as_current=False, broker=url, broker_use_ssl=tls)


@pytest.mark.parametrize("what", ["no certificate of ours"])
def test_a_worker_says_it_and_goes_on_trying(site: Site, tmp_path: Path, what: str) -> None:
    log = tmp_path / "worker.log"
    settings = environment(**wrong_settings(site, what), DATABASE_URL="postgresql://a@127.0.0.1:1/x")
    with log.open("w") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "history_worker.app", "worker", "-c", "1", "-n", f"{uuid4()}@%h"],
            env=settings,
            cwd=ROOT,
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: re.search(WRONG[what], log.read_text()), 60, what="the worker to say it")
        assert worker.poll() is None
    finally:
        worker.terminate()
        worker.wait(10)
    said = log.read_text()
    assert "Traceback" not in said
    assert site.password not in said


@pytest.mark.parametrize("what", ["another name"])
def test_the_command_line_says_it(site: Site, tmp_path: Path, what: str) -> None:
    says_what_is_wrong(site, tmp_path, what, "dead", "list")
