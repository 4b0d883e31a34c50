"""What the demo says: a moving line on a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console


class Teller:
    """Writes to standard output, each line at once."""

    def __init__(self) -> None:
        # Lines are never folded, and nothing is coloured in a pipe: other programs read them.
        self._console = Console(highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One line (or several), with rich's markup."""
        self._console.print(text)
        self._console.file.flush()

    def plain(self, text: str) -> None:
        """One line exactly as it is."""
        self._console.print(text, markup=False, style=None)
        self._console.file.flush()

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Say what is being waited for, and how long it took when it is there."""
        began = monotonic()
        if self._console.is_terminal:
            with self._console.status(f"waiting for {what}"):
                yield
        else:
            self.say(f"waiting for {what}")
            yield
        self.say(f"[green]✓[/green] {what} [dim]({monotonic() - began:.1f} s)[/dim]")
