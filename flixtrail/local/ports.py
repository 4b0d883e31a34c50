"""TCP ports on 127.0.0.1: free ones are chosen once, and again only when somebody else has taken them since."""

from __future__ import annotations

import random
import socket

from flixtrail.local.state import State, read_json, write_json

LOOPBACK = "127.0.0.1"
#: Below those that Linux (32768 on) and macOS (49152 on) give to outgoing connections: a server that is started again
#: finds its port still free.
RANGE = range(20_000, 32_000)


def is_free(port: int) -> bool:
    """Whether a server could listen on the port. One in TIME_WAIT counts as free, as it does for servers."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Whether somebody listens on the port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def keep(state: State, names: tuple[str, ...]) -> dict[str, int]:
    """A free port for every name: the one it had, where that is still free."""
    path = state.folder / "ports.json"
    kept = read_json(path) or {}
    chosen: dict[str, int] = {}
    for name in names:
        port = kept.get(name, 0)
        while not port or port in chosen.values() or not is_free(port):
            port = random.choice(RANGE)  # noqa: S311 (not a secret)
        chosen[name] = port
    write_json(path, kept | chosen)
    return chosen
