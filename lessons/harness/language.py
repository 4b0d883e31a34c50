"""The reader's language: what a lesson says in English is translated by `lessons/ko/NAME.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lessons.harness.events import Values

FOLDER = Path(__file__).parents[1] / "ko"
#: Translations that all lessons share: publisher, consumer, worker.
SHARED = "shared"


@dataclass(frozen=True)
class Language:
    """The words between a lesson's sentences, and a translation of these sentences."""

    really: str
    no: str
    why: str
    not_so: str  #: with {expected} and {found}
    nothing: str
    yes: str
    not_yes: str
    sentences: Mapping[str, str] = field(default_factory=dict)

    def text(self, text: str, values: Values | None = None) -> str:
        """Return the text in this language, with its values. A text without a translation stays English."""
        found = self.sentences.get(text, text)
        return found.format(**values) if values else found

    def difference(self, expected: object, found: object) -> str:
        """Return the sentence that says what was expected and what was found."""
        return self.not_so.format(expected=self.value(expected), found=self.value(found))

    def value(self, value: object) -> str:
        """Return a value in words, for a sentence: `1, 4` and not `[1, 4]`, `nothing` and not `None`."""
        if isinstance(value, bool):
            return self.yes if value else self.not_yes
        if isinstance(value, Mapping):
            return ", ".join(f"{key}: {self.value(one)}" for key, one in value.items()) or self.nothing
        if isinstance(value, list | tuple | set | frozenset):
            nested = any(isinstance(one, list | tuple | set | frozenset) for one in value)
            return (" / " if nested else ", ").join(map(self.value, value)) or self.nothing
        return self.nothing if value in (None, "") else str(value)


ENGLISH = Language(
    really="Really?",
    no="No.",
    why="Why:",
    not_so="Not so. Expected: {expected}. Found: {found}.",
    nothing="nothing",
    yes="yes",
    not_yes="no",
)


def korean(lesson: str) -> Language:
    """Return Korean, with the translations of one lesson."""
    return Language(
        really="정말일까요?",
        no="아닙니다.",
        why="이유:",
        not_so="그렇지 않습니다. 기대한 값: {expected}. 실제 값: {found}.",
        nothing="없음",
        yes="예",
        not_yes="아니요",
        sentences={**translations(SHARED), **translations(lesson)},
    )


def translations(lesson: str) -> dict[str, str]:
    """Return a lesson's translations: English text to Korean text."""
    path = FOLDER / f"{lesson}.toml"
    return {key: str(text) for key, text in tomllib.loads(path.read_text()).items()} if path.exists() else {}
