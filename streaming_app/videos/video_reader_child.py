"""`python -m streaming_app.videos.video_reader_child DESCRIPTOR BYTES`: reads the videos that `video_reader` sends it.

DESCRIPTOR is the socket to `video_reader`, BYTES the memory that this process may take. It opens no file by name. So
even if a file takes over the libraries that read it, it finds no other file, no secret and no room to write.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from streaming_app.videos.video_reader import STOPPED, TOO_MUCH_MEMORY, Failure, MetadataAnswer, frame

#: Seconds without a request after which this process ends and frees its 40 MB.
IDLE_S = 30.0
#: Open files: the socket, the video (twice) and what Python has open.
OPEN_FILES = 64
#: Stack of the thread that watches for the end. Without a limit it takes 8 MB.
STACK_BYTES = 256 * 1024
#: Maximum bytes of a request.
TASK_BYTES = 64


def main(descriptor: int, memory_bytes: int) -> None:
    connection = socket.socket(fileno=descriptor)
    threading.stack_size(STACK_BYTES)
    threading.Thread(target=_end_with, args=[connection], daemon=True).start()
    from streaming_app.videos import poster_picture, video_metadata

    tasks: dict[str, Callable[[str], Iterator[Any]]] = {
        "metadata": video_metadata.answers,
        "poster": poster_picture.answers,
    }
    limit(memory_bytes)
    connection.sendall(b"!")
    while True:
        connection.settimeout(IDLE_S)
        try:
            task, videos, _, _ = socket.recv_fds(connection, TASK_BYTES, 1)
        except TimeoutError:
            return
        if not videos:
            return
        connection.settimeout(None)
        try:
            if not answer_all(connection, tasks[task.decode()](f"/dev/fd/{videos[0]}")):
                return
        finally:
            os.close(videos[0])


def answer_all(connection: socket.socket, answers: Iterator[Any]) -> bool:
    """Send each answer. Returns False after one that took all the memory: the process then ends."""
    try:
        for answer in answers:
            connection.sendall(frame(answer))
            if answer.failure and answer.failure.costly:
                return False
    except MemoryError:
        connection.sendall(OUT_OF_MEMORY)
        return False
    return True


#: Made before memory is short. Both kinds of answers have this field, and neither requires another.
OUT_OF_MEMORY = frame(MetadataAnswer(failure=Failure(TOO_MUCH_MEMORY, costly=True)))


def limit(memory_bytes: int) -> None:
    """Limit the resources of this process, as far as the system enforces it. If memory is short, the kernel kills it
    first.
    """
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (most, most))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether reading failed for lack of memory, whichever error a library raises for it."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM


def _end_with(connection: socket.socket) -> None:
    """End this process when the other end of the connection is gone, even in the middle of a file."""
    poll = select.poll()
    poll.register(connection, 0)
    poll.poll()
    os._exit(STOPPED)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
