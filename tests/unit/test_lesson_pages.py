"""The pages of the lessons: made from them, whole in both languages, and current."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from flixtrail.cli import command
from lessons import pages
from lessons.harness import book, language, output
from lessons.harness.events import Broken, Explained, Moved, Proved, Said
from lessons.harness.telling import as_text
from lessons.harness.terms import Term, terms
from lessons.harness.texts import texts

LESSONS = book.lessons()
#: Exchanges and queues: the same in every language.
PLACES = re.compile(r"(\(\S*\)|\[\S+\])( \[\S+\])*")


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
def test_a_lesson_speaks_korean(lesson: book.Lesson) -> None:
    told, known = texts(lesson), language.translations(lesson.name)
    translated = {**language.translations(language.SHARED), **known}
    assert [text for text in told if text not in translated and not PLACES.fullmatch(text)] == []
    assert sorted(set(known) - set(told)) == [], "nobody says this any more"
    for text in told:
        assert set(re.findall(r"{\w+}", translated.get(text, text))) == set(re.findall(r"{\w+}", text))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_setting_that_breaks_something_has_a_reason(lesson: book.Lesson) -> None:
    assert lesson.breaks[0] in lesson.why
    assert lesson.why.keys() <= lesson.settings.keys()


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_what_is_proved_is_a_sentence(lesson: book.Lesson) -> None:
    for code in ("en", "ko"):
        for line in output.kept(lesson.name, code).splitlines():
            if "✓" in line:
                assert line.endswith("."), line
                assert not re.search(r"\b(True|False)\b|: None|\['|\[\d|\{'", line), line


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_term_is_used_at_a_line_or_says_why_not(lesson: book.Lesson) -> None:
    for term in terms(lesson.name):
        assert (term.line > 0) if term.used else term.unused


def test_a_line_that_is_gone_is_named() -> None:
    gone = Term("exchanges", "x", "x", "x", "x", ("view_events/topology.py", "no such " + "line"), None, None)
    with pytest.raises(LookupError, match=r"lessons/terms/exchanges.toml: x: no line of view_events/topology.py"):
        _ = gone.line


def test_what_happens_is_told_in_lines() -> None:
    assert as_text(Said("Hello.")) == "  Hello."
    assert as_text(Moved("v", ("publisher", "(views)", "[history]"))) == "  ● v: publisher → (views) → [history]"
    assert as_text(Proved("{count} came.", {"count": 3})) == "  ✓ 3 came."
    assert as_text(Proved("It stays.", {}, "It goes.")) == "  ? “It goes.” Really?\n  ✓ No. It stays."
    assert as_text(Broken("It came.", 1, [])) == "  ✗ It came.\n    Not so. Expected: 1. Found: nothing."
    assert as_text(Explained("Because.")) == "    Why: Because."


def test_what_happens_is_told_in_korean() -> None:
    spoken = language.korean("hello")
    assert as_text(Moved("view", ("publisher", "(views)")), spoken) == "  ● 시청 이벤트: 발행자 → (views)"
    assert (
        as_text(Broken("x", expected=True, found=None), spoken)
        == "  ✗ x\n    그렇지 않습니다. 기대한 값: 예. 실제 값: 없음."
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "nothing"), ("", "nothing"), ([], "nothing"), (0, "0"), (True, "yes"), ([1, 4], "1, 4"),
     ([["a"], []], "a / nothing"), ({"left": 1, "acked": 0}, "left: 1, acked: 0")],
)  # fmt: skip
def test_a_value_is_told_in_words(value: object, words: str) -> None:
    assert language.ENGLISH.value(value) == words


def test_the_list_names_every_lesson_and_its_settings() -> None:
    said = CliRunner().invoke(command, ["lesson"]).output
    for lesson in LESSONS:
        assert lesson.name in said
    assert "x_match=none" in said


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["nothing"], "'nothing' is no lesson. There are: hello"),
        (["exchanges", "--set", "x_match"], "--set x_match: expected SETTING=VALUE with one of: x_match=none"),
        (["exchanges", "--set", "colour=red"], "--set colour=red: expected SETTING=VALUE with one of: x_match=none"),
        (["exchanges", "--set", "durable=perhaps"], "--set durable=perhaps: expected true or false"),
    ],
)
def test_what_cannot_be_is_named(arguments: list[str], answer: str) -> None:
    result = CliRunner().invoke(command, ["lesson", *arguments])
    assert answer in str(result.exception)


@pytest.mark.parametrize(("options", "word"), [([], "Exchanges"), (["--ko"], "익스체인지")])
def test_a_page_is_printed(options: list[str], word: str) -> None:
    assert word in CliRunner().invoke(command, ["lesson", "exchanges", "--explain", *options]).output
