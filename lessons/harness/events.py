"""What a lesson tells, one event after another. Texts are English; `harness/language.py` knows them in Korean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: What stands for `{limit}` in a text: {"limit": 3}.
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """A sentence about what comes now."""

    text: str
    values: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Moved:
    """A message on its way: `publisher`, `(an exchange)`, `[a queue]`, `consumer`."""

    message: str
    way: tuple[str, ...]
    values: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Proved:
    """A sentence that RabbitMQ has just confirmed. `myth`: what many believe instead."""

    sentence: str
    values: Values = field(default_factory=dict)
    myth: str | None = None


@dataclass(frozen=True)
class Broken:
    """A sentence that is not true now, with what was expected and what was found instead."""

    sentence: str
    expected: object
    found: object
    values: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Explained:
    """One sentence: why a changed setting breaks a proof."""

    text: str


Event = Said | Moved | Proved | Broken | Explained
Teller = Callable[[Event], None]
