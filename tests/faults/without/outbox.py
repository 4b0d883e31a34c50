"""A process that accepts views, with an outbox that is nowhere but in its memory."""

import sqlite3
from pathlib import Path

from streaming_app.recording import outbox_file
from tests.faults import accepter


def in_memory(path: Path) -> sqlite3.Connection:
    """One database for all who name it, in this process."""
    return sqlite3.connect(
        f"file:{path.name}?mode=memory&cache=shared", uri=True, isolation_level=None, check_same_thread=False
    )


if __name__ == "__main__":
    outbox_file._connect = in_memory  # noqa: SLF001
    accepter.main()
