"""`python -m streaming_app`: the web server and its processes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import socket
import sys
import tempfile
from pathlib import Path
from time import monotonic, sleep

import structlog
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from streaming_app import create_app, leaving
from streaming_app.rsgi import App
from streaming_app.samples import samples
from streaming_app.settings import StreamingSettings
from view_events import metrics_files
from view_events.logs import configure
from view_events.settings import SettingsError, read

log = structlog.get_logger(__name__)

#: Connections of one process. A paused viewer keeps one, so there must be many more of them than requests at a time.
CONNECTIONS = 16_384
#: Open files of one process: a viewer has a socket and a file.
OPEN_FILES = 2 * CONNECTIONS + 1_024
#: Connections that may wait to be accepted.
BACKLOG = 4_096
#: What a connection may hold of an answer that nobody reads, and the most that a request's headers may take. With
#: granian's own 400 kB, 500 paused viewers cost 320 MB; with this, 150.
BUFFER_BYTES = 64 * 1024
#: Threads of a process that read files. With granian's 512, a rush of viewers started 200 and held up everything else.
FILE_THREADS = 16
#: Processes whose parent was killed leave by themselves, and then the port is free.
PORT_PATIENCE_S = 2 * leaving.ORPHAN_CHECK_S + 0.5

#: Only what is worth a look, through the handler of `view_events.logs`.
GRANIAN_LOGS = {
    "formatters": {},
    "handlers": {},
    "loggers": {"_granian": {"handlers": [], "propagate": True}},
}


class PortTaken(Exception):
    """Nothing can listen at the address; the message names it and says what to do."""


def main() -> None:
    """Run until SIGTERM or SIGINT. Exit status 1: the port is taken; 2: a setting is wrong."""
    try:
        settings = read(StreamingSettings)
        configure(settings)
        address = listening_address(settings.host, settings.port)
        check_outbox(settings.outbox)
        if settings.videos is None:
            samples(settings.cache)
        # For its imports, which the processes inherit, and to see a wrong setting before anything has started.
        create_app(settings)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except PortTaken as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    allow_open_files(OPEN_FILES)
    metrics_files.make()
    # An RSGI application need not be callable, though granian's annotation says so.
    try:
        server(settings, address).serve(target_loader=lambda: App(settings), wrap_loader=False)  # type: ignore[arg-type, return-value]
    finally:
        metrics_files.remove()


def server(settings: StreamingSettings, address: str) -> MPServer:
    """Granian with the figures of docs/decisions/0002-web-server.md."""
    multiprocessing.set_start_method("fork")
    os.register_at_fork(after_in_child=leaving.forget_handlers)
    log.info("listening", url=f"http://{settings.host}:{settings.port}", processes=settings.web_processes)
    return MPServer(
        "streaming_app.rsgi",
        address,
        settings.port,
        interface=Interfaces.RSGI,
        workers=settings.web_processes,
        respawn_failed_workers=True,
        workers_kill_timeout=leaving.KILL_AFTER_S,
        loop=Loops.asyncio,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=CONNECTIONS,
        http1_settings=HTTP1Settings(max_buffer_size=BUFFER_BYTES),
        runtime_blocking_threads=FILE_THREADS,
        log_level=LogLevels.warning,
        log_dictconfig=GRANIAN_LOGS,
    )


def check_outbox(folder: Path) -> None:
    """See now that views can be stored there, and not when the broker is away. Raises SettingsError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        if error.errno != errno.ENOSPC:  # a full disk passes
            raise SettingsError(f"OUTBOX: cannot write to {folder}: {error.strerror}") from None


def listening_address(host: str, port: int) -> str:
    """The IP address of `host`, where nothing listens on `port`. Raises PortTaken.

    Granian shares its port between its processes (SO_REUSEPORT), and so would with another server on the same port.
    """
    deadline = monotonic() + PORT_PATIENCE_S
    while True:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            socket.create_server(address[:2], family=family).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE and monotonic() < deadline:
                sleep(leaving.ORPHAN_CHECK_S / 2)
                continue
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(f"Port {port} on {host} is taken by another program. Choose one with PORT.") from None
            raise PortTaken(f"Cannot listen on {host}, port {port}: {error.strerror}.") from None
        else:
            return str(address[0])


def allow_open_files(wanted: int) -> None:
    """Raise this process's limit, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


if __name__ == "__main__":
    main()
