"""`python -m lessons.pages`: writes docs/lessons from the lessons; `--check` (in `make lint`) says what is out of date.

A page is the lesson's own text, its picture, its code, what it told in a real run, its exercise, and where Flixtrail
uses what it is about; in English and in Korean.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from flixtrail.local.program import ROOT
from lessons import output
from lessons.book import Lesson, lessons
from lessons.terms import Term, terms

FOLDER = ROOT / "docs" / "lessons"
GENERATED = "<!-- Made by `python -m lessons.pages`. -->"


@dataclass(frozen=True)
class Words:
    """What stands between the parts, in one language."""

    code: str
    told: str
    exercise: str
    used: str
    all_lessons: str
    term: str
    meaning: str
    where: str


ENGLISH = Words(
    code="The code",
    told="What happens",
    exercise="Try it",
    used="In Flixtrail",
    all_lessons="All lessons",
    term="Term",
    meaning="Meaning",
    where="Where Flixtrail uses it",
)
KOREAN = Words(
    code="코드",
    told="실행 결과",
    exercise="해 보기",
    used="Flixtrail 에서는",
    all_lessons="전체 목록",
    term="용어",
    meaning="뜻",
    where="Flixtrail 에서 쓰는 곳",
)


def pages() -> dict[Path, str]:
    """All pages with what should stand in them. Raises FileNotFoundError, LookupError, ValueError: what is missing."""
    book = lessons()
    made = {FOLDER / "README.md": _index(book), FOLDER / "glossary.md": _glossary(book)}
    for lesson in book:
        made[FOLDER / "en" / f"{lesson.name}.md"] = english(lesson)
        made[FOLDER / "ko" / f"{lesson.name}.md"] = korean(lesson)
    return made


def english(lesson: Lesson) -> str:
    """The lesson's page."""
    title = f"{lesson.number}. {lesson.title}"
    return _page(lesson, title, lesson.text, lesson.exercise, ENGLISH)


def korean(lesson: Lesson) -> str:
    """The same in Korean. Raises ValueError when the text has no title or no exercise."""
    head, found, exercise = lesson.korean().partition(f"\n## {KOREAN.exercise}\n")
    title, _, text = head.strip().partition("\n")
    if not found or not title.startswith("# "):
        raise ValueError(f"lessons/ko/{lesson.name}.md: expected `# title`, text, and `## {KOREAN.exercise}`")
    return _page(lesson, f"{lesson.number}. {title[2:]}", text.strip(), exercise.strip(), KOREAN)


def _page(lesson: Lesson, title: str, text: str, exercise: str, words: Words) -> str:
    other, elsewhere = (
        ("한국어", f"../ko/{lesson.name}.md") if words is ENGLISH else ("English", f"../en/{lesson.name}.md")
    )
    source = lesson.source.relative_to(ROOT)
    code = lesson.source.read_text()
    parts = [
        GENERATED,
        f"# {title}",
        f"[{words.all_lessons}](../README.md) · [{other}]({elsewhere}) · `flixtrail lesson {lesson.name}`",
        text,
        f"![{lesson.title}](../pictures/{lesson.name}.svg)",
        f"## {words.told}",
        f"```\n{output.kept(lesson.name).rstrip()}\n```",
        f"## {words.code}",
        f"[{source}](../../../{source})",
        f"```python\n{code[code.index('def play(') :].rstrip()}\n```",
        f"## {words.exercise}",
        exercise,
        f"## {words.used}",
        _used(terms(lesson.name), words),
    ]
    return "\n\n".join(parts) + "\n"


def _used(found: Sequence[Term], words: Words) -> str:
    rows = [f"| {words.term} | {words.meaning} | {words.where} |", "| --- | --- | --- |"]
    for term in found:
        name, meaning = (term.en, term.meaning_en) if words is ENGLISH else (term.ko, term.meaning_ko)
        rows.append(f"| {name} | {meaning} | {_where(term, '../../..')} |")
    return "\n".join(rows)


def _where(term: Term, root: str) -> str:
    if term.used is None:
        return f"not used: {term.unused}"
    return f"[{term.used[0]}:{term.line}]({root}/{term.used[0]}#L{term.line})"


def _index(book: Sequence[Lesson]) -> str:
    lines = [
        GENERATED,
        "",
        "# Lessons: messaging, to run and to break",
        "",
        "Each concept of messaging with RabbitMQ as a short program that runs against a real broker, shows each step,",
        "and proves what it says with what the broker says. 한국어: 아래 표의 두 번째 열.",
        "",
        "```",
        "make lessons                                    all of them, a line a lesson",
        "flixtrail lesson                                the list",
        "flixtrail lesson exchanges                      step by step, with messages that move",
        "flixtrail lesson exchanges --set x_match=any    change a setting, and see what it breaks",
        "```",
        "",
        "| | English | 한국어 |",
        "| --: | --- | --- |",
    ]
    for lesson in book:
        title = lesson.korean().partition("\n")[0].removeprefix("# ")
        lines.append(
            f"| {lesson.number} | [{lesson.title}](en/{lesson.name}.md) | [{title}](ko/{lesson.name}.md) |",
        )
    lines += [
        "",
        "## Concept, lesson, and where Flixtrail uses it",
        "",
        "| Concept | 개념 | Lesson | Where Flixtrail uses it |",
        "| --- | --- | --- | --- |",
    ]
    for lesson in book:
        link = f"[{lesson.name.replace('_', ' ')}](en/{lesson.name}.md)"
        lines += [f"| {term.en} | {term.ko} | {link} | {_where(term, '../..')} |" for term in terms(lesson.name)]
    lines += ["", "All terms with what they mean, in both languages: [glossary](glossary.md).", ""]
    return "\n".join(lines)


def _glossary(book: Sequence[Lesson]) -> str:
    found = sorted((term for lesson in book for term in terms(lesson.name)), key=lambda term: term.en.lower())
    lines = [GENERATED, "", "# Glossary · 용어집", "", "| Term | Meaning | 용어 | 뜻 |", "| --- | --- | --- | --- |"]
    for term in found:
        english_name, korean_name = f"[{term.en}](en/{term.lesson}.md)", f"[{term.ko}](ko/{term.lesson}.md)"
        lines.append(f"| {english_name} | {term.meaning_en} | {korean_name} | {term.meaning_ko} |")
    return "\n".join([*lines, ""])


def stale(made: Mapping[Path, str]) -> list[Path]:
    """The files that are not as they should be, and those that should not be there."""
    there = {*FOLDER.glob("*.md"), *FOLDER.glob("en/*.md"), *FOLDER.glob("ko/*.md")}
    old = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    return sorted([*old, *(there - set(made))])


def main(arguments: Sequence[str]) -> None:
    made = pages()
    old = stale(made)
    if "--check" in arguments:
        for path in old:
            click.echo(f"{path.relative_to(ROOT)} is out of date: `python -m lessons.pages` writes it anew")
        sys.exit(1 if old else 0)
    for path in old:
        if path not in made:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[path])
    click.echo(f"{len(made)} pages in docs/lessons, {len(old)} of them new")


if __name__ == "__main__":
    main(sys.argv[1:])
