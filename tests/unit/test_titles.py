"""Titles as they may be shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_app.videos.titles import TITLE_CHARS, clean_title


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u200c\u062e"),  # ZWNJ within a Persian word
        ("क्\u200dष", "क्\u200dष"),  # ZWJ in Devanagari
        ("👩\u200d👩\u200d👧 film", "👩\u200d👩\u200d👧 film"),
        ("\u1112\u1161\u11ab\u1100\u1173\u11af", "한글"),  # as macOS writes file names
        ("cafe\u0301", "café"),
        ("שלום\u200f!", "שלום\u200f!"),
        ("gpj.\u202eexe\u202c", "gpj.exe"),  # an override would turn the rest of the line around
        ("a\u2066b\u2069c", "abc"),
        ("two\nlines\u2028more\0", "two lines more"),
        ("\u200d\u200c", ""),
        ("\x1b[31mred", "[31mred"),
    ],
)
def test_joiners_stay_and_what_turns_text_around_goes(text: str, shown: str) -> None:
    assert clean_title(text) == shown


@given(st.text())
def test_a_title_is_one_short_line(text: str) -> None:
    title = clean_title(text)
    assert len(title) <= TITLE_CHARS
    assert len(title.splitlines()) <= 1
    assert not any("\u202a" <= char <= "\u202e" or "\u2066" <= char <= "\u2069" for char in title)
    assert clean_title(title) == title.strip()
