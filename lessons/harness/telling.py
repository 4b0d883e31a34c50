"""Prints what happens in a lesson: as lines, or in a terminal with messages that move."""

from __future__ import annotations

from collections.abc import Sequence
from time import sleep

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.text import Text

from lessons.harness.events import Broken, Event, Explained, Moved, Proved, Said
from lessons.harness.language import ENGLISH, Language

INDENT = "  "
#: Seconds for a message from one place to the next, and in how many frames.
HOP_S, FRAMES = 0.35, 7
ARROW = 9


def as_text(event: Event, language: Language = ENGLISH) -> str:
    """Return one event as plain lines."""
    match event:
        case Said(text, values):
            return f"{INDENT}{language.text(text, values)}"
        case Moved(message, way, values):
            places = " → ".join(language.text(place, values) for place in way)
            return f"{INDENT}● {language.text(message, values)}: {places}"
        case Proved(sentence, values, None):
            return f"{INDENT}✓ {language.text(sentence, values)}"
        case Proved(sentence, values, myth):
            asked = f"{INDENT}? “{language.text(str(myth))}” {language.really}"
            return f"{asked}\n{INDENT}✓ {language.no} {language.text(sentence, values)}"
        case Broken(sentence, expected, found, values):
            difference = language.difference(expected, found)
            return f"{INDENT}✗ {language.text(sentence, values)}\n{INDENT * 2}{difference}"
        case Explained(text):
            return f"{INDENT * 2}{language.why} {language.text(text)}"


class Show:
    """In a terminal: colours, and messages that move from place to place."""

    def __init__(
        self, console: Console, language: Language = ENGLISH, *, pause: str | None = None, speed: float = 1.0
    ) -> None:
        """`pause`: this prompt waits for Enter after each step."""
        self._console = console
        self._language = language
        self._pause = pause
        self._hop_s = HOP_S / speed

    def __call__(self, event: Event) -> None:
        language = self._language
        match event:
            case Said(text, values):
                self._console.print(Padding(Text(language.text(text, values)), (1, 0, 0, 2)))
            case Moved():
                self._move(event)
            case Proved(sentence, values, None):
                self._console.print(
                    Padding(Text.assemble(("✓ ", "green"), language.text(sentence, values)), (0, 0, 0, 2))
                )
            case Proved(sentence, values, myth):
                box = Text.assemble(
                    (f"“{language.text(str(myth))}”\n", "italic"),
                    ("✓ ", "green"),
                    (f"{language.no} ", "bold"),
                    language.text(sentence, values),
                )
                self._console.print(
                    Padding(Panel(box, title=language.really, border_style="yellow", expand=False), (0, 2))
                )
            case Broken(sentence, expected, found, values):
                first = Text.assemble(("✗ ", "red"), (language.text(sentence, values), "bold"))
                self._console.print(Padding(first, (0, 0, 0, 2)))
                self._console.print(Padding(Text(language.difference(expected, found)), (0, 0, 0, 4)))
            case Explained(text):
                why = Text.assemble((f"{language.why} ", "bold yellow"), language.text(text))
                self._console.print(Padding(why, (0, 0, 0, 4)))
        if self._pause and not isinstance(event, Said | Broken):
            self._console.input(f"[dim]  {self._pause}[/dim] ")

    def _move(self, event: Moved) -> None:
        message = self._language.text(event.message, event.values)
        way = [self._language.text(place, event.values) for place in event.way]
        if not self._console.is_terminal:
            self._console.print(Text(as_text(event, self._language)))
            return
        with Live(console=self._console, refresh_per_second=30) as live:
            for hop in range(len(way) - 1):
                for frame in range(FRAMES):
                    live.update(_drawn(message, way, hop, frame / FRAMES))
                    sleep(self._hop_s / FRAMES)
            live.update(_drawn(message, way, len(way) - 1, 0))


def _drawn(message: str, way: Sequence[str], hop: int, part: float) -> Text:
    """Draw the way, and the message on it: past `hop` places, and a part of the arrow that follows."""
    line = Text(INDENT)
    for number, place in enumerate(way):
        here = number == hop and not part
        line.append(place, _style(place) + (" reverse" if here else ""))
        if number == len(way) - 1:
            break
        at = int(part * ARROW) if number == hop and part else -1
        line.append(" ")
        for step in range(ARROW):
            line.append("●" if step == at else "─", "bold red" if step == at else "dim")
        line.append("▶ ", "dim")
    line.append(f"  ● {message}", "red")
    return line


def _style(place: str) -> str:
    """Exchanges are in parentheses, queues in brackets."""
    return {"(": "bold magenta", "[": "bold blue"}.get(place[:1], "bold")
