"""Tells what happens in a lesson: as lines, or in a terminal with messages that move."""

from __future__ import annotations

from time import sleep

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from lessons.stage import Event, Moved, Proved, Said

INDENT = "  "
#: How long a message takes from one place to the next, and in how many steps.
HOP_S, FRAMES = 0.35, 7
ARROW = 9


def as_text(event: Event) -> str:
    """One event as plain lines."""
    match event:
        case Said(text):
            return f"{INDENT}{text}"
        case Moved(message, way):
            return f"{INDENT}● {message}: {' → '.join(way)}"
        case Proved(claim, seen, None):
            return f"{INDENT}✓ {claim}: {seen}"
        case Proved(claim, seen, myth):
            return f"{INDENT}? “{myth}” Really?\n{INDENT}✓ No: {claim}: {seen}"


class Show:
    """In a terminal: colours, and messages that move from place to place."""

    def __init__(self, console: Console, *, pause: bool = False, speed: float = 1.0) -> None:
        self._console = console
        self._pause = pause
        self._hop_s = HOP_S / speed

    def __call__(self, event: Event) -> None:
        match event:
            case Said(text):
                self._console.print(Padding(Text(text), (1, 0, 0, 2)))
            case Moved():
                self._move(event)
            case Proved(claim, seen, None):
                self._console.print(Padding(Text.assemble(("✓ ", "green"), claim, ": ", (seen, "bold")), (0, 0, 0, 2)))
            case Proved(claim, seen, myth):
                box = Text.assemble((f"“{myth}”\n", "italic"), ("No: ", "bold"), claim, ": ", (seen, "bold"))
                self._console.print(Padding(Panel(box, title="Really?", border_style="yellow", expand=False), (0, 2)))
        if self._pause and not isinstance(event, Said):
            self._console.input("[dim]  Enter: go on[/dim] ")

    def _move(self, event: Moved) -> None:
        if not self._console.is_terminal:
            self._console.print(Text(as_text(event)))
            return
        with Live(console=self._console, refresh_per_second=30) as live:
            for hop in range(len(event.way) - 1):
                for frame in range(FRAMES):
                    live.update(_drawn(event, hop, frame / FRAMES))
                    sleep(self._hop_s / FRAMES)
            live.update(_drawn(event, len(event.way) - 1, 0))


def _drawn(event: Moved, hop: int, part: float) -> Text:
    """The way, and the message on its way: past `hop` places, and a part of the arrow that follows."""
    line = Text(INDENT)
    for number, place in enumerate(event.way):
        here = number == hop and not part
        line.append(place, _style(place) + (" reverse" if here else ""))
        if number == len(event.way) - 1:
            break
        at = int(part * ARROW) if number == hop and part else -1
        line.append(" ")
        for step in range(ARROW):
            line.append("●" if step == at else "─", "bold red" if step == at else "dim")
        line.append("▶ ", "dim")
    line.append(f"  ● {event.message}", "red")
    return line


def _style(place: str) -> str:
    """Exchanges are in parentheses, queues in brackets."""
    return {"(": "bold magenta", "[": "bold blue"}.get(place[:1], "bold")
