"""Formats text for the terminal: other people's text without control characters, and numbers with their nouns."""

from __future__ import annotations

import re

#: Control characters (C0, DEL, C1), line and paragraph separators, marks that change the writing direction, and halves
#: of surrogate pairs, which cannot be sent to a terminal.
UNSAFE_CHARACTERS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
#: Characters of the longest text that is shown on one line.
MAX_CHARACTERS = 300


def visible(text: object, longest: int | None = MAX_CHARACTERS) -> str:
    r"""Return one line that is safe to print: the escape character becomes `\x1b`, a line feed `\n`.

    Text longer than `longest` characters is cut, with an ellipsis. None: nothing is cut.
    """
    shown = str(text)
    if longest is not None and len(shown) > longest:
        shown = f"{shown[:longest]}…"
    return UNSAFE_CHARACTERS.sub(_escaped, shown)


def visible_lines(text: object) -> str:
    """Do the same for text of several lines. Line ends stay, and nothing is cut."""
    return "\n".join(visible(line, None) for line in str(text).split("\n"))


def quantity(count: int, noun: str) -> str:
    """Format a number with its noun: `1 view`, `1,200 views`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode("ascii")
