"""`python -m streaming_app`: starts the web server and its processes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import structlog
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.mp import MPServer

from service import metrics_files
from service.listening import PortTaken, listening_address
from service.logs import configure
from service.settings import SettingsError, read
from streaming_app import create_app, shutdown
from streaming_app.recording.token_buckets import BucketTable
from streaming_app.rsgi import App
from streaming_app.settings import StreamingSettings
from streaming_app.videos.samples import samples

log = structlog.get_logger(__name__)

#: Connections of one process. A paused viewer keeps a connection, so there must be many more connections than
#: concurrent requests.
CONNECTIONS = 16_384
#: Open files of one process: a viewer has a socket and a file.
OPEN_FILES = 2 * CONNECTIONS + 1_024
#: Connections that may wait to be accepted.
BACKLOG = 4_096
#: Bytes of an answer that a connection buffers if the client does not read, and the maximum size of a request's
#: headers. With granian's default of 400 kB, 500 paused viewers take 320 MB of memory; with this value, 150 MB.
BUFFER_BYTES = 64 * 1024
#: Threads of a process that read files. With granian's default of 512, a rush of viewers started 200 threads, which
#: slowed down everything else.
FILE_THREADS = 16
#: granian's loggers: warnings and errors only, through the handler of `service.logs`.
GRANIAN_LOGS = {
    "formatters": {},
    "handlers": {},
    "loggers": {"_granian": {"handlers": [], "propagate": True}},
}


def main() -> None:
    """Run until SIGTERM or SIGINT. Exit status 1: the port is taken. Exit status 2: a setting is wrong."""
    try:
        settings = read(StreamingSettings)
        configure(settings)
        address = listening_address(settings.host, settings.port)
        check_folder("OUTBOX", settings.outbox, private=True)
        check_folder("CACHE", settings.cache)
        if settings.videos is None:
            samples(settings.cache)
        # Checks the settings before anything starts. The processes also inherit its imports.
        create_app(settings)
        buckets = bucket_table(settings.limits_file)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except PortTaken as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
    allow_open_files(OPEN_FILES)
    metrics_files.make()
    # granian's annotation says that the application is callable. An RSGI application need not be.
    try:
        server(settings, address).serve(target_loader=lambda: App(settings, buckets), wrap_loader=False)  # type: ignore[arg-type, return-value]
    finally:
        metrics_files.remove()


def server(settings: StreamingSettings, address: str) -> MPServer:
    """Make granian's server, with the figures of docs/decisions/0002-web-server.md."""
    multiprocessing.set_start_method("fork")
    os.register_at_fork(after_in_child=shutdown.forget_handlers)
    log.info("listening", url=f"http://{settings.host}:{settings.port}", processes=settings.web_processes)
    return MPServer(
        "streaming_app.rsgi",
        address,
        settings.port,
        interface=Interfaces.RSGI,
        workers=settings.web_processes,
        respawn_failed_workers=True,
        workers_kill_timeout=shutdown.KILL_AFTER_S,
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


def check_folder(variable: str, folder: Path, *, private: bool = False) -> None:
    """Check at the start that the folder can be written to. Raises SettingsError."""
    try:
        folder.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
        if private:
            with suppress(PermissionError):  # it belongs to another user: keep its mode
                folder.chmod(0o700)
        tempfile.TemporaryFile(dir=folder).close()
    except FileExistsError:
        raise SettingsError(f"{variable}: {folder} is a file, expected a folder") from None
    except OSError as error:
        if error.errno != errno.ENOSPC:  # a full disk is a passing problem
            raise SettingsError(f"{variable}: cannot write to {folder}: {error.strerror}") from None


def bucket_table(path: Path | None) -> BucketTable:
    """Make the table in which all processes count the limits. Raises SettingsError."""
    try:
        return BucketTable(path)
    except OSError as error:
        raise SettingsError(f"LIMITS_FILE: cannot write {path}: {error.strerror}") from None


def allow_open_files(wanted: int) -> None:
    """Raise this process's limit of open files to `wanted`, or as far as the system permits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


if __name__ == "__main__":
    main()
