"""The demo's output: a moving line on a terminal, plain lines in a pipe."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from rich.console import Console


class QuietlyEnding(Console):
    """A console that becomes silent when nobody reads its output any more."""

    def on_broken_pipe(self) -> None:
        """Become silent. rich would end the program."""
        self.quiet = True
        # At its end Python would flush the buffer and report an error.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.file.fileno())
        os.close(null)


class Teller:
    """Writes to standard output, each line at once.

    If nobody reads the output any more, it becomes silent and the program continues. With `make demo | tee log`, Ctrl-C
    ends `tee` and asks the demo to stop, and the demo still has everything to stop.
    """

    def __init__(self) -> None:
        out = sys.stdout or io.StringIO()  # standard output is closed
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="replace")  # the encoding of a terminal or a pipe may lack the tick
        # Lines are never wrapped and a pipe gets no colours, because programs read them.
        self._console: Console = QuietlyEnding(file=out, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print one line (or several), with rich's markup."""
        self._print(text)

    def plain(self, text: str) -> None:
        """Print one line without markup."""
        self._print(text, markup=False, style=None)

    def _print(self, text: str, **how: Any) -> None:
        try:
            self._console.print(text, **how)
            self._console.file.flush()
        except OSError:  # the disk with the log is full
            self._console.on_broken_pipe()

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Say what the demo waits for, and how long it took."""
        began = monotonic()
        if self._console.is_terminal:
            with self._console.status(f"waiting for {what}"):
                yield
        else:
            self.say(f"waiting for {what}")
            yield
        self.say(f"[green]✓[/green] {what} [dim]({monotonic() - began:.1f} s)[/dim]")
