"""Cleans titles of videos, and makes ids that can be part of an address."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata

#: Characters of a name that go into an id. With a hash added, an id stays below its limit of 128.
ID_CHARS = 100
TITLE_CHARS = 200
#: Characters of a file's own title that are looked at, because a title may have millions.
READ_CHARS = 10 * TITLE_CHARS
#: Unicode categories that a title does not need: controls, formats, surrogates, line and paragraph separators.
CONTROLS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
#: Format characters that belong to words or to composed pictures: joiners (Persian, Hindi, families of emoji), marks
#: that set the direction of a single character, and the letters in flags of regions. Characters that reverse the text
#: after them (overrides, embeddings, isolates) are not among them.
JOINERS = frozenset("\u200c\u200d\u200e\u200f\u061c") | frozenset(map(chr, range(0xE0020, 0xE0080)))


def clean_title(text: str) -> str:
    """Clean a title: one line of visible text, composed (NFC; file names of macOS are not), and cut. Empty if nothing
    visible is left.
    """
    kept = "".join(_shown(char) for char in text[:READ_CHARS])
    title = unicodedata.normalize("NFC", " ".join(kept.split()))[:TITLE_CHARS]
    return title if any(char not in JOINERS for char in title) else ""


def _shown(char: str) -> str:
    if char in JOINERS or unicodedata.category(char) not in CONTROLS:
        return char
    # Format characters stand within words; the others separate words.
    return "" if unicodedata.category(char) == "Cf" else " "


def id_of(name: str) -> str:
    """Make the id of a file from its name below the folder only. So other files never change it.

    `clip-1.mp4` becomes `clip-1`; another extension stays (`clip-1.webm`). If characters must be replaced, a hash of
    the whole name is added, so that similar names differ: `Films/Ma mère.mp4` becomes `Films-Ma-m-re-` and eight
    hexadecimal digits.
    """
    plain = name.removesuffix(".mp4")
    if re.fullmatch(rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{ID_CHARS - 1}}}", plain):
        return plain
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', plain)[:ID_CHARS]}-{short_hash(name)}"


def short_hash(text: str) -> str:
    """Return eight hexadecimal digits of a hash."""
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]
