"""The pages of the lessons: made from them, whole in both languages, and current."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from flixtrail.cli import command
from lessons import book, pages
from lessons.stage import Moved, Proved, Said
from lessons.telling import as_text
from lessons.terms import Term, terms

LESSONS = book.lessons()


def test_every_lesson_is_written() -> None:
    assert [lesson.name for lesson in LESSONS] == list(book.NAMES)


def test_the_pages_are_what_the_lessons_say_now() -> None:
    assert pages.stale(pages.pages()) == [], "`python -m lessons.pages` writes them anew"


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_lesson_is_whole_in_both_languages(lesson: book.Lesson) -> None:
    found = terms(lesson.name)
    assert found
    assert all(term.ko and term.meaning_en and term.meaning_ko for term in found)
    for page in (pages.english(lesson), pages.korean(lesson)):
        assert "✓" in page
        assert "--set" in page
    assert any("가" <= letter <= "힣" for letter in pages.korean(lesson))
    assert (pages.FOLDER / "pictures" / f"{lesson.name}.svg").exists()


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_term_is_used_at_a_line_or_says_why_not(lesson: book.Lesson) -> None:
    for term in terms(lesson.name):
        assert (term.line > 0) if term.used else term.unused


def test_a_line_that_is_gone_is_named() -> None:
    gone = Term("exchanges", "x", "x", "x", "x", ("view_events/topology.py", "no such " + "line"), None)
    with pytest.raises(LookupError, match=r"lessons/terms/exchanges.toml: x: no line of view_events/topology.py"):
        _ = gone.line


def test_what_happens_is_told_in_lines() -> None:
    assert as_text(Said("Hello.")) == "  Hello."
    assert as_text(Moved("v", ("publisher", "(views)", "[history]"))) == "  ● v: publisher → (views) → [history]"
    assert as_text(Proved("it came", "1")) == "  ✓ it came: 1"
    assert as_text(Proved("it stays", "1", "it goes")) == "  ? “it goes” Really?\n  ✓ No: it stays: 1"


def test_the_list_names_every_lesson_and_its_settings() -> None:
    said = CliRunner().invoke(command, ["lesson"]).output
    for lesson in LESSONS:
        assert lesson.name in said
    assert "x_match=none" in said


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["nothing"], "'nothing' is no lesson. There are: messaging"),
        (["exchanges", "--set", "x_match"], "--set x_match: expected SETTING=VALUE with one of: x_match=none"),
        (["exchanges", "--set", "colour=red"], "--set colour=red: expected SETTING=VALUE with one of: x_match=none"),
        (["exchanges", "--set", "durable=perhaps"], "--set durable=perhaps: expected a value like true"),
    ],
)
def test_what_cannot_be_is_named(arguments: list[str], answer: str) -> None:
    result = CliRunner().invoke(command, ["lesson", *arguments])
    assert answer in str(result.exception)


@pytest.mark.parametrize(("options", "word"), [([], "Exchanges"), (["--ko"], "익스체인지")])
def test_a_page_is_printed(options: list[str], word: str) -> None:
    assert word in CliRunner().invoke(command, ["lesson", "exchanges", "--explain", *options]).output
