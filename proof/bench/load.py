"""The load generator: `python -m proof.bench.load`, a separate process that uses as little CPU time as possible.

It uses non-blocking sockets and one epoll. All requests are prepared as bytes before the first one is sent. Of an
answer, only the status and the length are read. It reads a Plan from its standard input and writes an Outcome to its
standard output.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from collections import deque
from typing import Any

import msgspec

from local.unsupervised_part import ROOT
from proof.bench.errors import Lost, UnexpectedAnswer

RECEIVE_BYTES = 1024 * 1024
#: If no answer comes for this many seconds, a part hangs.
STALL_TIMEOUT_S = 30.0
END_OF_HEAD = b"\r\n\r\n"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Which client sends which requests. Each client sends its requests one after another, over one open connection."""

    port: int
    clients: list[list[bytes]]
    status: int = 202  #: the status that every answer must have
    rate: float | None = None  #: open loop: requests per second of all clients together; any free client sends the next


class Outcome(msgspec.Struct, kw_only=True):
    """When the first request was sent and the last answer came (seconds since 1970), and the time of each request."""

    began: float = 0.0
    ended: float = 0.0
    answers: int = 0
    received_bytes: int = 0
    cpu_s: float = 0.0
    #: In the order of the answers: (client, when it was sent, when it was answered).
    times: list[tuple[int, float, float]] = msgspec.field(default_factory=list)
    failure: str | None = None


class Client:
    """One connection and its requests."""

    def __init__(self, number: int, plan: Plan) -> None:
        self.number = number
        self.requests = deque(plan.clients[number])
        self.socket = socket.create_connection(("127.0.0.1", plan.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(0)
        self._status = f"HTTP/1.1 {plan.status} ".encode()
        self._unsent = memoryview(b"")
        self._head = b""
        self._missing: int | None = None  # bytes of the answer's content that are still missing; None: no head yet
        self.sent_at = 0.0

    def send(self) -> bool:
        """Start the next request. Returns True when all of it has been sent."""
        self._unsent = memoryview(self.requests.popleft())
        self._head, self._missing = b"", None
        self.sent_at = time.time()
        return self.continue_sending()

    def continue_sending(self) -> bool:
        try:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            return False
        return not self._unsent

    def receive(self, buffer: bytearray) -> tuple[int, bool]:
        """Read what has arrived. Returns the number of bytes, and whether the answer is complete.

        Raises UnexpectedAnswer.
        """
        count = self.socket.recv_into(buffer)
        if not count:
            raise UnexpectedAnswer("the connection was closed instead of an answer")
        if self._missing is None:
            self._head += buffer[:count]
            end = self._head.find(END_OF_HEAD)
            if end < 0:
                return count, False
            if not self._head.startswith(self._status):
                raise UnexpectedAnswer(self._head[:1000].decode(errors="replace"))
            lowered = self._head[:end].lower()
            at = lowered.index(b"content-length:") + len(b"content-length:")
            self._missing = int(lowered[at:].partition(b"\r")[0]) - (len(self._head) - end - len(END_OF_HEAD))
        else:
            self._missing -= count
        return count, self._missing <= 0


def get(path: str, headers: dict[str, str]) -> bytes:
    """Make a complete GET request, as it is sent."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Run:
    """Runs all clients of a plan over one epoll."""

    def __init__(self, plan: Plan, outcome: Outcome) -> None:
        self._plan, self._outcome = plan, outcome
        made = [Client(number, plan) for number in range(len(plan.clients))]
        self._clients = {client.socket.fileno(): client for client in made}
        self._free = deque(client for client in made if client.requests)
        self._epoll = select.epoll()
        for number in self._clients:
            self._epoll.register(number, select.EPOLLIN)
        self._buffer = bytearray(RECEIVE_BYTES)
        self._begun = 0

    def go(self) -> None:
        """Send everything. Raises UnexpectedAnswer, TimeoutError."""
        outcome, expected = self._outcome, sum(map(len, self._plan.clients))
        cpu, outcome.began = time.process_time(), time.time()
        while outcome.answers < expected:
            wait_s = self._send_due_requests()
            happened = self._epoll.poll(wait_s)
            if not happened and wait_s == STALL_TIMEOUT_S:
                raise TimeoutError(f"no answer for {STALL_TIMEOUT_S:.0f} s, {outcome.answers} of {expected} are there")
            for number, what in happened:
                self._handle_event(number, what)
        outcome.ended, outcome.cpu_s = time.time(), time.process_time() - cpu

    def _send_due_requests(self) -> float:
        """Let free clients send; in an open loop only as many as are due. Returns the seconds to wait."""
        while self._free:
            if self._plan.rate:
                ahead = self._outcome.began + self._begun / self._plan.rate - time.time()
                if ahead > 0:
                    return ahead
            self._begun += 1
            client = self._free.popleft()
            if not client.send():
                self._epoll.modify(client.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        return STALL_TIMEOUT_S

    def _handle_event(self, number: int, what: int) -> None:
        client, outcome = self._clients[number], self._outcome
        if what & select.EPOLLOUT and client.continue_sending():
            self._epoll.modify(number, select.EPOLLIN)
        if what & ~select.EPOLLOUT:
            count, whole = client.receive(self._buffer)
            outcome.received_bytes += count
            if whole:
                outcome.answers += 1
                outcome.times.append((client.number, client.sent_at, time.time()))
                if client.requests:
                    self._free.append(client)


def main() -> None:
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Plan)
    outcome = Outcome()
    try:
        Run(plan, outcome).go()
    except (UnexpectedAnswer, OSError) as error:
        outcome.failure = f"after {outcome.answers} answers: {error}"
    sys.stdout.buffer.write(msgspec.msgpack.encode(outcome))


class Generator:
    """A load generator that has its plan and waits. Call `wait` for its outcome. Raises Lost for a wrong answer."""

    def __init__(self, plan: Plan) -> None:
        self._process: subprocess.Popen[Any] = subprocess.Popen(
            [sys.executable, "-m", "proof.bench.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C reaches the bench, which ends this process
        )
        self._plan = msgspec.msgpack.encode(plan)

    def wait(self) -> Outcome:
        """Send everything and return the outcome."""
        try:
            answer, _ = self._process.communicate(self._plan)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        outcome = msgspec.msgpack.decode(answer, type=Outcome) if answer else Outcome(failure="it ended by itself")
        if outcome.failure:
            raise Lost(f"The load generator: {outcome.failure}")
        return outcome


if __name__ == "__main__":
    main()
