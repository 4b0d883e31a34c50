"""The output of a run: a line when a fault begins or is healed, and on a terminal a moving line below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.status import Status

#: Seconds between two lines of figures if there is no terminal.
LINE_EVERY_S = 30.0


class Screen:
    """Writes to standard output, each line at once."""

    def __init__(self) -> None:
        # Lines are never wrapped and a pipe gets no colours, because programs read them.
        self._console = Console(highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._said = monotonic()

    def say(self, text: str) -> None:
        """Print one line without markup."""
        self._console.print(text, markup=False)
        self._console.file.flush()

    def fault(self, at_s: float, sign: str, text: str) -> None:
        """Print that a fault begins or is healed."""
        style = {"!": "red", "+": "green"}.get(sign, "dim")
        self._console.print(f"{at_s:7.1f} s  [{style}]{sign}[/] {text}")
        self._console.file.flush()

    @contextmanager
    def live_line(self, text: str) -> Iterator[None]:
        """Inside the block, on a terminal, `show` replaces what it showed before."""
        if not self._console.is_terminal:
            self.say(text)
            yield
            return
        with self._console.status(text) as self._status:
            yield
        self._status = None

    def show(self, figures: Mapping[str, float | None], left: str) -> None:
        """Show the current figures. `left` says what the run waits for."""
        texts = {name: "?" if value is None else f"{value:,.0f}" for name, value in figures.items() if name != "at_s"}
        line = " · ".join([left, *(f"{name} {value}" for name, value in texts.items())])
        if self._status:
            self._status.update(line)
        elif monotonic() - self._said >= LINE_EVERY_S:
            self._said = monotonic()
            self.say(f"{figures.get('at_s') or 0:7.1f} s    {line}")
