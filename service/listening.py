"""Makes sure that only one service listens on a port.

Granian shares its port between its processes (SO_REUSEPORT). It also shares it with another server on the same
port: each then gets some of the other's requests.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from time import monotonic, sleep

#: Seconds between two checks whether the parent lives. Until a process notices that it does not, it keeps the port.
ORPHAN_CHECK_S = 0.25
#: Seconds to wait for the port: processes whose parent was killed end by themselves within this time.
PORT_TIMEOUT_S = 2 * ORPHAN_CHECK_S + 0.5


class PortTaken(Exception):
    """The service cannot listen at this address. The message names the address and says what to do."""


def listening_address(host: str, port: int, variable: str = "PORT") -> str:
    """Return the IP address of `host`, if its `port` is free. Raises PortTaken, which names the variable to change."""
    deadline = monotonic() + PORT_TIMEOUT_S
    while True:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            socket.create_server(address[:2], family=family).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE and monotonic() < deadline:
                sleep(ORPHAN_CHECK_S / 2)
                continue
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(
                    f"Port {port} on {host} is taken by another program. Choose one with {variable}."
                ) from None
            raise PortTaken(f"Cannot listen on {host}, port {port} ({variable}): {error.strerror}.") from None
        else:
            return str(address[0])


def end_with_parent() -> None:
    """End this process when its parent is gone. Otherwise a process of Granian stays and keeps the port.

    Use it only in a process that may be killed at any time.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            sleep(ORPHAN_CHECK_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()
