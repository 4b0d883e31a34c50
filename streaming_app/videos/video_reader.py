"""Reads video files in a separate process with limits of memory and time, because a crafted file may take all of both.

The process (`video_reader_child`) starts when there is something to read. It reads one file after another, and ends by
itself when it has had nothing to do for a while. It gets each file already open, so it need not find files, and it gets
no secrets.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Literal, TypeVar

import msgspec
import structlog

log = structlog.get_logger(__name__)

#: Seconds for one file. A slow share or a busy machine needs less; a longer read would block all others.
READ_S = 10.0
#: Seconds for additional data: samples of the content, from all over the file.
SAMPLES_S = 3.0
#: Seconds until the process must be ready. On an idle machine it takes half a second.
START_S = 60.0
#: Maximum bytes of an answer. A poster has about twenty thousand.
ANSWER_BYTES = 4 * 1024 * 1024
LENGTH_BYTES = 4
#: Address space that the process may take, in bytes. A picture in 4K (H.264) takes 250 MB, one in 8K (HEVC, 10 bits)
#: 700 MB; the tables of a ten-hour film take about 100 MB.
MEMORY_BYTES = 384 * 1024 * 1024
#: Environment variables that the child inherits. The others contain secrets, which reading a video does not need.
INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "PYTHONHOME", "SYSTEMROOT")
#: Exit status of a child that ended because it was idle or its parent was gone. Any other status means that a file
#: ended it.
STOPPED = 0

TOO_MUCH_MEMORY = "it takes too much memory to read"
TOO_LONG = "it takes too long to read"


#: Hashes of a video's content, by where they were taken: at this second or, if the number is negative, of this many
#: packets at the beginning.
Samples = dict[int, str]
#: The sample that every video has.
BEGINNING = -8


class Metadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """The metadata of a video file.

    `title` is None if the file has none. `duration_s` is the playable length, None if the file does not say it, for
    example while it is being recorded. `start_s` is the first timestamp. `samples` are the same for the same film,
    whatever its name, its tags and its container.
    """

    title: str | None = None
    duration_s: float | None = None
    start_s: float = 0.0
    samples: Samples = {}


class Failure(msgspec.Struct, frozen=True):
    """Why the file cannot be read. `costly`: reading it took all the permitted memory."""

    reason: str
    costly: bool = False


class MetadataAnswer(msgspec.Struct, frozen=True):
    """An answer of the child. It sends `metadata` once without `samples`, and once with them."""

    metadata: Metadata | None = None
    failure: Failure | None = None


class PosterAnswer(msgspec.Struct, frozen=True):
    """An answer of the child: a JPEG."""

    jpeg: bytes | None = None
    failure: Failure | None = None


class Unreadable(Exception):
    """A file cannot be read as a video. The message is for viewers. Raised by VideoReader.

    `costly`: it took all the permitted memory or time, or ended the process. Do not try it again soon.
    """

    def __init__(self, reason: str, *, costly: bool = False) -> None:
        super().__init__(reason)
        self.costly = costly


class _Killed(Unreadable):
    """The process was killed while it read the file."""


class ReaderAway(Exception):
    """The process does not start, so nothing is known about the file. Try again later. Raised by VideoReader."""


T = TypeVar("T", MetadataAnswer, PosterAnswer)


class VideoReader:
    """One reader process, used by one thread at a time. `memory_bytes`: its limit of memory, address space included."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._stop: Callable[[], object] = _nothing

    def metadata(self, descriptor: int) -> Metadata:
        """Return the metadata of the open file. Raises Unreadable, ReaderAway."""
        with self._lock:
            first = self._ask_twice("metadata", descriptor, MetadataAnswer)
            if first.metadata is None:
                raise _unreadable(first.failure)
            try:
                second = self._receive(SAMPLES_S, MetadataAnswer)
            except Unreadable as error:
                log.debug("no samples of a video", reason=str(error))
                return first.metadata
            return second.metadata or first.metadata

    def poster(self, descriptor: int) -> bytes:
        """Return a picture from the open file, as a JPEG. Raises Unreadable, ReaderAway."""
        with self._lock:
            answer = self._ask_twice("poster", descriptor, PosterAnswer)
            if answer.jpeg is None:
                raise _unreadable(answer.failure)
            return answer.jpeg

    def start(self) -> None:
        """Start the process now, before a file is claimed for it. Raises ReaderAway."""
        with self._lock:
            self._connected()

    def stop(self) -> None:
        """End the process, if there is one. The next request starts it again."""
        with self._lock:
            self._end()

    def _ask_twice(self, task: Literal["metadata", "poster"], descriptor: int, answer: type[T]) -> T:
        try:
            return self._ask(task, descriptor, answer)
        except _Killed:  # it may have been killed from outside, and not because of the file
            return self._ask(task, descriptor, answer)

    def _ask(self, task: Literal["metadata", "poster"], descriptor: int, answer: type[T]) -> T:
        for attempt in (1, 2):
            connection = self._connected()
            try:
                socket.send_fds(connection, [task.encode()], [descriptor])
            except OSError:  # it has just ended, because it was idle
                self._end()
                continue
            try:
                return self._receive(READ_S, answer)
            except _Idle:
                if attempt == 1:
                    continue
        raise ReaderAway("the program that reads videos ends as soon as it is started")

    def _receive(self, timeout_s: float, answer: type[T]) -> T:
        """Return the next answer. If it is late or invalid, ends the process and raises Unreadable."""
        deadline = monotonic() + timeout_s
        try:
            length = min(int.from_bytes(self._read(LENGTH_BYTES, deadline)), ANSWER_BYTES)
            received = msgspec.msgpack.decode(self._read(length, deadline), type=answer)
        except TimeoutError:
            self._end()
            raise Unreadable(TOO_LONG, costly=True) from None
        except (EOFError, OSError):
            raise self._how_it_ended() from None
        except msgspec.MsgspecError as error:
            self._end()
            raise Unreadable("reading it fails", costly=True) from error
        if received.failure and received.failure.costly:
            self._end()  # the process would keep the memory that it took
        return received

    def _read(self, length: int, deadline: float) -> bytes:
        assert self._connection is not None  # noqa: S101 (_ask saw to it)
        content = bytearray()
        while len(content) < length:
            self._connection.settimeout(max(deadline - monotonic(), 0.001))
            block = self._connection.recv(min(length - len(content), 65536))
            if not block:
                raise EOFError
            content += block
        return bytes(content)

    def _how_it_ended(self) -> Exception:
        """Return why the process is gone: it was idle, or the file that it read ended it."""
        process = self._process
        status = None
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(1)
        self._end()
        if status == STOPPED:
            return _Idle()
        # If the machine is short of memory, the kernel kills this child first, because the child asks for that.
        if status is None or -status == signal.SIGKILL:
            return _Killed(TOO_MUCH_MEMORY, costly=True)
        return Unreadable("reading it fails", costly=True)

    def _connected(self) -> socket.socket:
        if self._connection is not None:
            return self._connection
        ours, theirs = socket.socketpair()
        code = Path(__file__).resolve().parents[2]
        with theirs:
            arguments = [str(theirs.fileno()), str(self._memory_bytes)]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streaming_app.videos.video_reader_child", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={
                    **{name: os.environ[name] for name in INHERITED if name in os.environ},
                    "PYTHONPATH": str(code),
                    # glibc reserves 64 MB of address space for each thread, and our second thread needs none.
                    "MALLOC_ARENA_MAX": "1",
                },
                cwd="/",
            )
        self._connection = ours
        self._stop = weakref.finalize(self, _stop, os.getpid(), self._process, ours)
        try:
            self._read(1, monotonic() + START_S)
        except (EOFError, OSError) as error:
            status = self._process.poll()
            self._end()
            if status is not None or isinstance(error, TimeoutError):  # otherwise we are shutting down ourselves
                log.warning("the program that reads videos does not start", status=status, reason=str(error))
            raise ReaderAway("the program that reads videos does not start") from None
        return ours

    def _end(self) -> None:
        self._stop()
        self._connection = self._process = None


def _nothing() -> None:
    """Do nothing: no process has been started."""


def _stop(owner: int, process: subprocess.Popen[bytes], connection: socket.socket) -> None:
    connection.close()
    if os.getpid() == owner:  # not in a fork: the process belongs to its parent
        process.kill()
        process.wait()


@functools.cache
def reader_for(_purpose: str, memory_bytes: int) -> VideoReader:
    """Return the reader of this web process for a purpose. Different purposes do not wait for each other."""
    return VideoReader(memory_bytes)


class _Idle(Exception):
    """The process was idle and ended before it got the request."""


def _unreadable(failure: Failure | None) -> Unreadable:
    return Unreadable(failure.reason, costly=failure.costly) if failure else Unreadable("reading it fails")


def frame(answer: Any) -> bytes:
    """Encode an answer as the child sends it."""
    content = msgspec.msgpack.encode(answer)
    return len(content).to_bytes(LENGTH_BYTES) + content
