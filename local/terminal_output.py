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


class BrokenPipeConsole(Console):
    """A console that becomes silent when nobody reads its output any more."""

    def on_broken_pipe(self) -> None:
        """Become silent. By default, rich ends the program."""
        self.quiet = True
        # Without this, Python flushes the buffer at its end and reports an error.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.file.fileno())
        os.close(null)


class TerminalOutput:
    """Writes to standard output, each line at once.

    If nobody reads the output any more, it becomes silent and the program continues. With `make demo | tee log`, Ctrl-C
    ends `tee` and asks the demo to stop. The demo must then still stop its parts.
    """

    def __init__(self) -> None:
        out = sys.stdout or io.StringIO()  # standard output is closed
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="replace")  # the encoding of a terminal or a pipe may lack the tick
        # Lines are never wrapped and a pipe gets no colours, because programs read them.
        self._console: Console = BrokenPipeConsole(file=out, highlight=False, soft_wrap=True)

    def print(self, text: str) -> None:
        """Print one line (or several), with rich's markup."""
        self._write(text)

    def print_plain(self, text: str) -> None:
        """Print one line without markup."""
        self._write(text, markup=False, style=None)

    def _write(self, text: str, **options: Any) -> None:
        try:
            self._console.print(text, **options)
            self._console.file.flush()
        except OSError:  # the disk with the log is full
            self._console.on_broken_pipe()

    @contextmanager
    def waiting_for(self, what: str) -> Iterator[None]:
        """Print what the demo waits for, and how long it took."""
        began = monotonic()
        if self._console.is_terminal:
            with self._console.status(f"waiting for {what}"):
                yield
        else:
            self.print(f"waiting for {what}")
            yield
        self.print(f"[green]✓[/green] {what} [dim]({monotonic() - began:.1f} s)[/dim]")
