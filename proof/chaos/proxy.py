"""A TCP proxy between two parts. It can cut their connections, delay the data, or swallow it.

`python -m proof.chaos.proxy` serves links in a separate process. It reads commands from its standard input, one JSON
object per line. When standard input is closed, it ends, so it ends with its parent.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

from proof.chaos.errors import ProxyFailed

#: Directions of a link: from the connecting side to the listening side, and back.
THERE, BACK = "there", "back"
BOTH = (THERE, BACK)
CHUNK_BYTES = 64 * 1024
#: With this option a closed connection is reset: its peer gets an error, not an end of file.
RESET = struct.pack("ii", 1, 0)

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Flow:
    """One direction of all connections of a link: passes data at once, after `delay_s`, or not at all."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.passing = asyncio.Event()
        self.passing.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Copy data until one side ends. If the flow stops, pending data (or an end) arrives when it passes again."""
        while True:
            await self.passing.wait()
            chunk = await reader.read(CHUNK_BYTES)
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self.passing.wait()
            if not chunk:
                return
            writer.write(chunk)
            await writer.drain()


class Link:
    """The link of one pair of parts: listens on `port` of 127.0.0.1, and connects to `upstream`, a port there or a Unix
    socket.
    """

    def __init__(self, port: int, upstream: int | str) -> None:
        self._port = port
        self._upstream = upstream
        self._flows = {direction: Flow() for direction in BOTH}
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.StreamWriter, asyncio.StreamWriter | None] = {}

    async def open(self) -> None:
        """Accept connections. Does nothing if it accepts them already."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def cut(self) -> None:
        """Reset every connection and refuse new ones, until `open`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for pair in list(self._connections.items()):
            for writer in pair:
                if writer is not None:
                    reset(writer)

    def set(self, direction: str, *, passing: bool = True, delay_s: float = 0) -> None:
        """Set how one direction behaves from now on, also for existing connections."""
        flow = self._flows[direction]
        flow.delay_s = delay_s
        if passing:
            flow.passing.set()
        else:
            flow.passing.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[writer] = None
        try:
            upstream, far = await self._connect()
        except OSError:
            reset(writer)
            del self._connections[writer]
            return
        self._connections[writer] = far
        flows = [
            asyncio.ensure_future(self._flows[THERE].carry(reader, far)),
            asyncio.ensure_future(self._flows[BACK].carry(upstream, writer)),
        ]
        try:
            await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
            failed = any(flow.done() and flow.exception() for flow in flows)
        finally:
            del self._connections[writer]
            for flow in flows:
                flow.cancel()
            await asyncio.gather(*flows, return_exceptions=True)
        for one in (writer, far):
            if failed:
                reset(one)
            else:
                one.close()

    async def _connect(self) -> Streams:
        if isinstance(self._upstream, str):
            return await asyncio.open_unix_connection(self._upstream)
        return await asyncio.open_connection("127.0.0.1", self._upstream)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with a reset, as if the machine no longer knew it."""
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


class Proxies:
    """All links by name, in the process that serves them."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}

    async def execute(self, command: Mapping[str, Any]) -> None:
        """Execute a command `{"do", "link", ...}`. Raises KeyError for an unknown one, OSError if a port is taken."""
        name, do = command["link"], command["do"]
        if do == "serve":
            self._links[name] = Link(command["port"], command["upstream"])
        link = self._links[name]
        match do:
            case "serve":
                await link.open()
            case "pass":
                for direction in BOTH:
                    link.set(direction)
                await link.open()
            case "cut":
                await link.cut()
            case "delay":
                link.set(command["direction"], delay_s=command["delay_s"])
            case "swallow":
                link.set(command["direction"], passing=False)
            case _:
                raise KeyError(do)


async def serve() -> None:
    """Read commands from standard input, one per line. Answer each with `ok` or the error."""
    proxies, commands = Proxies(), asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        try:
            await proxies.execute(json.loads(line))
            answer = "ok"
        except (KeyError, OSError) as error:
            answer = f"{type(error).__name__}: {error}"
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


class ProxyProcess:
    """The links of one run, in a separate process that no fault touches. Safe for many threads.

    Methods raise ProxyFailed.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "proof.chaos.proxy"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in the terminal is for the runner, which still needs the proxy
        )
        self._lock = threading.Lock()

    def serve(self, link: str, port: int, upstream: int | str) -> None:
        """Start a link from `port` on 127.0.0.1 to another port there, or to a Unix socket."""
        self._send_command(do="serve", link=link, port=port, upstream=upstream)

    def cut(self, link: str) -> None:
        """Reset its connections and refuse new ones."""
        self._send_command(do="cut", link=link)

    def delay(self, link: str, direction: str, delay_s: float) -> None:
        """Delay all data in this direction by this many seconds."""
        self._send_command(do="delay", link=link, direction=direction, delay_s=delay_s)

    def swallow(self, link: str, direction: str) -> None:
        """Make a black hole: connections are accepted and stay open, but no data arrives in this direction."""
        self._send_command(do="swallow", link=link, direction=direction)

    def heal(self, link: str) -> None:
        """Pass all data in both directions, and accept connections."""
        self._send_command(do="pass", link=link)

    def close(self) -> None:
        """End the process, with all connections."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send_command(self, **command: Any) -> None:
        with self._lock:
            assert self._process.stdin, "opened above"
            assert self._process.stdout, "opened above"
            try:
                self._process.stdin.write(json.dumps(command) + "\n")
                self._process.stdin.flush()
                answer = self._process.stdout.readline().strip()
            except OSError as error:
                raise ProxyFailed(f"the proxy is gone: {error}") from None
        if answer != "ok":
            raise ProxyFailed(f"{command}: {answer or 'the proxy is gone'}")


if __name__ == "__main__":
    asyncio.run(serve())
