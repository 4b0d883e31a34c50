"""Looks on while everything is being killed: what is accepted, stored, waiting, and delivered again.

Each figure is asked for in a thread of its own: a frozen database must not hide what the broker says.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Self

LOOK_EVERY_S = 1.0
#: An older figure is not shown: nobody knows.
STALE_S = 2.5
#: What a worker logs with each batch that the broker had delivered before (history_worker/tasks.py).
REDELIVERED = b"redelivered=True"

#: Returns a figure, or None when nobody can tell just now. May raise, may take long.
Question = Callable[[], float | None]


class Redeliveries:
    """Counts batches written that had been delivered before, in logs that grow and are rotated. For one thread."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        #: How far a log was read, by its inode, which it keeps when it is renamed.
        self._read: dict[int, int] = {}
        self._count = 0

    def count(self) -> int:
        """All so far."""
        for path in sorted(self._logs.glob("history-worker-*.log*")):
            try:
                with path.open("rb") as file:
                    inode = os.fstat(file.fileno()).st_ino
                    file.seek(self._read.get(inode, 0))
                    lines = file.read()
            except FileNotFoundError:
                continue  # rotated just now; there under its next name
            # A line that is half written is read again.
            whole = lines.rfind(b"\n") + 1
            self._read[inode] = self._read.get(inode, 0) + whole
            self._count += lines.count(REDELIVERED, 0, whole)
        return self._count


class Watch:
    """Asks every question once a second, and keeps what all had to say: `samples`, with `at_s` since the beginning."""

    def __init__(self, questions: Mapping[str, Question]) -> None:
        self._questions = questions
        self._answers: dict[str, tuple[float, float | None]] = {}
        self._stopped = threading.Event()
        self._began = monotonic()
        self.samples: list[dict[str, float | None]] = []

    def __enter__(self) -> Self:
        self._began = monotonic()
        for name, question in self._questions.items():
            threading.Thread(target=self._ask, args=(name, question), name=f"watch-{name}", daemon=True).start()
        threading.Thread(target=self._note, name="watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def now(self) -> dict[str, float | None]:
        """The latest figures; None for those that nobody could tell a moment ago."""
        oldest = monotonic() - STALE_S
        answers = dict(self._answers)
        known = {name: value for name, (at, value) in answers.items() if at >= oldest}
        return {"at_s": monotonic() - self._began} | {name: known.get(name) for name in self._questions}

    def _ask(self, name: str, question: Question) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            try:
                answer = question()
            except Exception:  # noqa: BLE001 (whatever is broken just now is broken on purpose)
                answer = None
            self._answers[name] = (monotonic(), answer)

    def _note(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            self.samples.append(self.now())
