"""Suggests the right word for a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'send'?` if a known word is similar; otherwise an empty string."""
    found = get_close_matches(word.lower(), list(known), n=1)
    return f" Did you mean {found[0]!r}?" if found else ""
