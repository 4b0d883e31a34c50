"""TCP ports on 127.0.0.1: free ones are chosen once, and again only when somebody else has taken them since."""

from __future__ import annotations

import socket

from flixtrail.local.state import State, read_json, write_json

LOOPBACK = "127.0.0.1"


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
    # All are held open until all are chosen, so that none is given out twice.
    probes = []
    for name in names:
        port = int(kept.get(name, 0))
        probe = socket.socket()
        probes.append(probe)
        probe.bind((LOOPBACK, port if port and is_free(port) else 0))
        chosen[name] = probe.getsockname()[1]
    for probe in probes:
        probe.close()
    write_json(path, kept | chosen)
    return chosen
