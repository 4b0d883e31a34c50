"""The real web server as a subprocess, without a broker: what needs none must not notice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import urllib3

from service import metrics_files
from tests.client import Client
from tests.waiting import until

#: Nothing listens there.
NO_BROKER = "amqp://guest:guest@127.0.0.1:1//"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Web:
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def client(self) -> Client:
        return Client(self.url)

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def answers(self) -> bool:
        try:
            return self.client.get("/healthz").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def connect(self, request: str = "") -> socket.socket:
        """A connection of its own, upon which `request` has been sent. Its receive buffer is small."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(request.encode())
        return connection


def start(folder: Path, videos: Path, *, port: int = 0, env: Mapping[str, str] | None = None) -> Web:
    """Start `python -m streaming_app`; does not wait for it."""
    port = port or free_port()
    log = folder / "web.log"
    settings = {
        "PORT": str(port),
        "CACHE": str(folder / "cache"),
        "OUTBOX": str(folder / "outbox"),
        "VIDEOS": str(videos),
        "AMQP_URL": NO_BROKER,
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "streaming_app"],
            env={**os.environ, **settings, **(env or {})},
            stdout=output,
            stderr=output,
        )
    return Web(port, process, log)


@contextmanager
def web_server(folder: Path, videos: Path, **env: str) -> Iterator[Web]:
    """The server of a test; killed at its end with all its processes, should any be left."""
    web = start(folder, videos, env=env)
    family = [psutil.Process(web.process.pid)]
    try:
        until(web.answers, timeout_s=30, what="the web server to answer")
        family += web.workers()
        yield web
        web.process.send_signal(signal.SIGTERM)
        web.process.wait(timeout=10)
    finally:
        for process in family:
            if process.is_running():
                process.kill()
        web.process.wait(timeout=10)
        metrics_files.remove_abandoned()  # it was killed, perhaps
