"""Makes other people's text safe to print: control characters are shown and not sent to the terminal."""

from __future__ import annotations

import re

#: Control characters (C0, DEL, C1), line and paragraph separators, marks that change the writing direction, and halves
#: of surrogate pairs, which cannot be sent to a terminal.
COMMANDS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
#: Characters of the longest text that is shown on one line.
LONGEST = 300


def visible(text: object, longest: int | None = LONGEST) -> str:
    r"""Return one line that is safe to print: the escape character becomes `\x1b`, a line feed `\n`.

    Text longer than `longest` characters is cut, with an ellipsis. None: nothing is cut.
    """
    shown = str(text)
    if longest is not None and len(shown) > longest:
        shown = f"{shown[:longest]}…"
    return COMMANDS.sub(_escaped, shown)


def visible_lines(text: object) -> str:
    """Do the same for text of several lines. Line ends stay, and nothing is cut."""
    return "\n".join(visible(line, None) for line in str(text).split("\n"))


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode("ascii")
