"""Chooses free TCP ports on 127.0.0.1. A port is chosen once, and again only if another program has taken it since."""

from __future__ import annotations

import errno
import random
import socket
from itertools import chain

from local.state import State, read_json, write_json

LOOPBACK = "127.0.0.1"
#: Below the ports of outgoing connections (Linux: from 32768, macOS: from 49152). So a restarted server finds its port
#: still free.
RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Return whether a server could listen on the port. A port in TIME_WAIT counts as free, because a server can use
    it.
    """
    return bind_error(port) is None


def bind_error(port: int) -> str | None:
    """Return the reason why a server cannot listen on the port, or None if it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"{port} on {LOOPBACK} is taken by another program"
            if error.errno == errno.EACCES:
                return f"{port} is a port that only root may listen on"
            return f"{port} on {LOOPBACK}: {error.strerror}"
    return None


def next_free(port: int) -> int:
    """Return the first port after this one that is free and open to every user. Raises StopIteration if
    there is none.
    """
    first = max(port + 1, 1024)
    return next(filter(is_free, chain(range(first, 65_536), range(8_000, first))))


def is_listening(port: int) -> bool:
    """Return whether a program listens on the port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def allocate(state: State, names: tuple[str, ...]) -> dict[str, int]:
    """Return a free port for every name: its earlier port if that is still free."""
    path = state.folder / "ports.json"
    known = read_json(path) or {}
    chosen: dict[str, int] = {}
    for name in names:
        port = known.get(name, 0)
        while port not in RANGE or port in chosen.values() or not is_free(port):
            port = random.choice(RANGE)  # noqa: S311 (not a secret)
        chosen[name] = port
    write_json(path, known | chosen)
    return chosen
