"""The lessons in their order, and what each module of them says about itself."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from lessons.broker import Broker
from lessons.stage import Teller, on_stage

#: The names of the modules, in the order in which they are read.
NAMES = (
    "messaging",
    "connections",
    "exchanges",
    "bindings",
    "properties",
    "queues",
    "push_and_pull",
    "work_queue",
    "acknowledgement",
    "confirms",
    "poison",
    "fan_out",
    "backpressure",
    "exactly_once",
    "containers",
)
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Lesson:
    """One module of this package.

    `play(stage, *, setting=its value)` does and proves it: what follows `*` are the settings that a reader may change.
    """

    number: int
    name: str
    title: str
    text: str  #: Markdown: what you will see
    exercise: str  #: Markdown: what to try next
    play: Callable[..., None]
    settings: dict[str, Any]  #: with the values with which everything can be proved
    breaks: tuple[str, Any]  #: a setting, and a value of it with which something cannot

    @property
    def source(self) -> Path:
        return FOLDER / f"{self.name}.py"

    def korean(self) -> str:
        """The same text in Korean, Markdown, with its own title and exercise."""
        return (FOLDER / "ko" / f"{self.name}.md").read_text()

    def run(self, broker: Broker, tell: Teller, **settings: Any) -> float:
        """Play it; how many seconds it took. Raises NotProved, Skipped."""
        began = monotonic()
        with on_stage(broker, self.name.replace("_", "-"), tell) as stage:
            self.play(stage, **settings)
        return monotonic() - began


def lessons() -> list[Lesson]:
    """All, in their order."""
    return [lesson(name) for name in NAMES]


def lesson(name: str) -> Lesson:
    """Raises KeyError for a name that no lesson has."""
    name = name.replace("-", "_")
    if name not in NAMES:
        raise KeyError(name)
    module = importlib.import_module(f"lessons.{name}")
    title, _, text = inspect.cleandoc(module.__doc__ or "").partition("\n")
    parameters = inspect.signature(module.play).parameters.values()
    return Lesson(
        number=NAMES.index(name) + 1,
        name=name,
        title=title.strip().rstrip("."),
        text=text.strip(),
        exercise=inspect.cleandoc(module.TRY),
        play=module.play,
        settings={one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY},
        breaks=module.BREAKS,
    )
