"""The terms of messaging, in English and in Korean, and where Flixtrail uses each: `lessons/terms/NAME.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from local.unsupervised_part import ROOT

FOLDER = Path(__file__).parents[1] / "terms"


@dataclass(frozen=True)
class Term:
    """One term of one lesson."""

    lesson: str
    en: str
    ko: str
    meaning_en: str
    meaning_ko: str
    used: tuple[str, str] | None  #: a file of the repository, and a piece of the line in it
    unused: str | None  #: why Flixtrail does not use it
    unused_ko: str | None  #: the same in Korean

    @property
    def line(self) -> int:
        """Return the number of the line in `used`. Raises LookupError if the file has no such line any more."""
        assert self.used, "asked for a term that is used"
        path, piece = self.used
        for number, line in enumerate((ROOT / path).read_text().splitlines(), start=1):
            if piece in line:
                return number
        raise LookupError(f"lessons/terms/{self.lesson}.toml: {self.en}: no line of {path} has {piece!r}")


def terms(lesson: str) -> list[Term]:
    """Return the terms of one lesson. Raises ValueError for an incomplete entry."""
    path = FOLDER / f"{lesson}.toml"
    entries = tomllib.loads(path.read_text()).get("term", []) if path.exists() else []
    found = []
    for entry in entries:
        missing = {"en", "ko", "meaning_en", "meaning_ko"} - set(entry)
        if missing or ("used" in entry) == ("unused" in entry) or ("unused" in entry) != ("unused_ko" in entry):
            raise ValueError(
                f"{path.name}: {entry.get('en')}: missing {sorted(missing) or '`used`, or `unused` and `unused_ko`'}"
            )
        used = entry.get("used")
        found.append(
            Term(
                lesson=lesson,
                used=(used[0], used[1]) if used else None,
                unused=entry.get("unused"),
                unused_ko=entry.get("unused_ko"),
                **{key: entry[key] for key in ("en", "ko", "meaning_en", "meaning_ko")},
            )
        )
    return found
