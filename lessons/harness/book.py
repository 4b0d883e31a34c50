"""The lessons in their order, and what each module says about itself."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any

from lessons.harness.broker import Broker
from lessons.harness.errors import NotProved, Skipped
from lessons.harness.events import Teller
from lessons.harness.stage import on_stage

#: The names of the modules, in the order in which they are read.
NAMES = (
    "hello",
    "messaging",
    "connections",
    "exchanges",
    "bindings",
    "properties",
    "queues",
    "queue_limits",
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
FOLDER = Path(__file__).parents[1]
#: The heading of the exercises in `lessons/ko/NAME.md`, on the pages and in the terminal.
KOREAN_EXERCISE = "해 보기"


@dataclass(frozen=True)
class Korean:
    """The title, text and exercise of a lesson in Korean, as Markdown: `lessons/ko/NAME.md`."""

    title: str
    text: str
    exercise: str


@dataclass(frozen=True)
class Lesson:
    """One module of `lessons`.

    Its function `play(stage, *, setting=value)` plays the lesson. The parameters after `*` are the settings that a
    reader may change.
    """

    number: int
    name: str
    title: str
    text: str  #: Markdown: what you will see
    exercise: str  #: Markdown: what to try next
    play: Callable[..., None]
    settings: dict[str, Any]  #: with the values for which every proof holds
    breaks: tuple[str, Any]  #: a setting, and a value for which a proof fails
    why: dict[str, str]  #: for a setting: why a proof fails when it is changed
    programs: tuple[str, ...]  #: modules of `lessons/programs` that its page shows

    @property
    def source(self) -> Path:
        return FOLDER / f"{self.name}.py"

    @cached_property
    def korean(self) -> Korean:
        """The same texts in Korean. Raises ValueError if there is no title or no exercise."""
        path = f"ko/{self.name}.md"
        head, found, exercise = (FOLDER / path).read_text().partition(f"\n## {KOREAN_EXERCISE}\n")
        title, _, text = head.strip().partition("\n")
        if not found or not title.startswith("# "):
            raise ValueError(f"lessons/{path}: expected `# title`, text, and `## {KOREAN_EXERCISE}`")
        return Korean(title.removeprefix("# "), text.strip(), exercise.strip())

    def run(self, broker: Broker, tell: Teller, **settings: Any) -> float:
        """Play it, and return how many seconds it took. Raises NotProved, Skipped."""
        began = monotonic()
        changed = [key for key, value in settings.items() if value != self.settings[key]]
        reasons = [self.why[key] for key in changed if key in self.why]
        with on_stage(broker, self.name.replace("_", "-"), tell, reasons) as stage:
            try:
                self.play(stage, **settings)
            except Skipped:
                raise
            except Exception as error:
                if not stage.broken:
                    raise
                raise NotProved(stage.broken, error) from error
        if stage.broken:
            raise NotProved(stage.broken)
        return monotonic() - began


def lessons() -> list[Lesson]:
    """Return all lessons, in their order."""
    return [lesson(name) for name in NAMES]


def lesson(name: str) -> Lesson:
    """Return one lesson. Raises KeyError if there is none with this name."""
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
        why=module.WHY,
        programs=getattr(module, "PROGRAMS", ()),
    )
