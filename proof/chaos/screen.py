"""What a run shows: a line when a fault begins and when it is healed, and on a terminal one that moves below them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.status import Status

#: Where nobody watches a terminal, the figures this often.
LINE_EVERY_S = 30.0


class Screen:
    """Writes to standard output, each line at once."""

    def __init__(self) -> None:
        # Lines are never folded, and nothing is coloured in a pipe: other programs read them.
        self._console = Console(highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._said = monotonic()

    def say(self, text: str) -> None:
        """One line exactly as it is."""
        self._console.print(text, markup=False)
        self._console.file.flush()

    def fault(self, at_s: float, sign: str, text: str) -> None:
        """A fault begins or is healed."""
        style = {"!": "red", "+": "green"}.get(sign, "dim")
        self._console.print(f"{at_s:7.1f} s  [{style}]{sign}[/] {text}")
        self._console.file.flush()

    @contextmanager
    def moving(self, text: str) -> Iterator[None]:
        """Within, `show` replaces what it showed before, on a terminal."""
        if not self._console.is_terminal:
            self.say(text)
            yield
            return
        with self._console.status(text) as self._status:
            yield
        self._status = None

    def show(self, figures: Mapping[str, float | None], left: str) -> None:
        """How it stands now; `left` says what is waited for."""
        told = {name: "?" if value is None else f"{value:,.0f}" for name, value in figures.items() if name != "at_s"}
        line = " · ".join([left, *(f"{name} {value}" for name, value in told.items())])
        if self._status:
            self._status.update(line)
        elif monotonic() - self._said >= LINE_EVERY_S:
            self._said = monotonic()
            self.say(f"{figures.get('at_s') or 0:7.1f} s    {line}")
