"""The proxy between two parts: what each fault looks like to those who speak through it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

from proof.chaos.proxy import BACK, THERE, ProxyProcess
from tests.demo import free_port
from tests.waiting import until

#: Long enough for anything on this machine to arrive that is going to.
SILENCE_S = 0.3


class Echo:
    """A server that says back what it hears."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    @staticmethod
    def _answer(connection: socket.socket) -> None:
        try:
            while heard := connection.recv(1024):
                connection.sendall(heard)
        except OSError:
            pass
        finally:
            connection.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as one:
        yield one


@pytest.fixture
def echo(listener: socket.socket) -> Echo:
    return Echo(listener)


@pytest.fixture
def proxy() -> Iterator[ProxyProcess]:
    with ProxyProcess() as one:
        yield one


@pytest.fixture
def port(proxy: ProxyProcess, listener: socket.socket, echo: Echo) -> int:  # noqa: ARG001 (it answers)
    port = free_port()
    proxy.serve("link", port, listener.getsockname()[1])
    return port


@pytest.fixture
def caller(port: int) -> Iterator[socket.socket]:
    with closing(connect(port)) as one:
        assert says(one, b"hello") == b"hello"
        yield one


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def says(caller: socket.socket, what: bytes) -> bytes:
    caller.sendall(what)
    return caller.recv(1024)


def hears_nothing(caller: socket.socket) -> None:
    caller.settimeout(SILENCE_S)
    with pytest.raises(TimeoutError):
        caller.recv(1024)
    caller.settimeout(5)


def test_a_cut_link_resets_what_is_there_and_refuses_what_comes_until_it_is_healed(
    proxy: ProxyProcess, port: int, caller: socket.socket
) -> None:
    proxy.cut("link")
    with pytest.raises(ConnectionResetError):
        caller.recv(1024)
    with pytest.raises(ConnectionRefusedError):
        connect(port)
    proxy.heal("link")
    with closing(connect(port)) as again:
        assert says(again, b"again") == b"again"


@pytest.mark.parametrize("direction", [THERE, BACK])
def test_a_black_hole_keeps_connections_open_and_lets_nothing_through(
    proxy: ProxyProcess, port: int, caller: socket.socket, direction: str
) -> None:
    proxy.swallow("link", direction)
    caller.sendall(b"anybody?")
    hears_nothing(caller)
    with closing(connect(port)) as another:
        another.sendall(b"and me?")
        hears_nothing(another)
        proxy.heal("link")
        assert another.recv(1024) == b"and me?"
    assert caller.recv(1024) == b"anybody?"


def test_a_black_hole_swallows_the_end_of_a_connection_too(
    proxy: ProxyProcess, caller: socket.socket, echo: Echo
) -> None:
    proxy.swallow("link", BACK)
    echo.connections[0].shutdown(socket.SHUT_RDWR)
    hears_nothing(caller)
    proxy.heal("link")
    assert caller.recv(1024) == b""


def test_a_delayed_link_says_everything_later(proxy: ProxyProcess, caller: socket.socket) -> None:
    proxy.delay("link", THERE, 0.2)
    proxy.delay("link", BACK, 0.1)
    began = monotonic()
    assert says(caller, b"slow") == b"slow"
    assert monotonic() - began >= 0.3
    proxy.heal("link")
    began = monotonic()
    assert says(caller, b"fast") == b"fast"
    assert monotonic() - began < 0.1


def test_an_upstream_that_is_away_resets_who_comes(proxy: ProxyProcess) -> None:
    port = free_port()
    proxy.serve("nowhere", port, 1)  # a second free port may be the first one again, and so the proxy itself
    with pytest.raises(ConnectionResetError):
        hear(port)


def hear(port: int) -> bytes:
    """Connect (which may be reset already) and listen."""
    with closing(connect(port)) as caller:
        return caller.recv(1024)


def test_a_unix_socket_is_reached_over_tcp(proxy: ProxyProcess, tmp_path: Path) -> None:
    port = free_port()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        echo = Echo(listener)
        proxy.serve("database", port, str(tmp_path / "socket"))
        with closing(connect(port)) as caller:
            assert says(caller, b"hello") == b"hello"
            proxy.cut("database")
            with pytest.raises(ConnectionResetError):
                caller.recv(1024)
        until(lambda: echo.connections[0].fileno() == -1, what="the server to hear of the cut")
