"""`python -m lessons.pages`: writes docs/lessons from the lessons. `--check` (in `make lint`) lists pages out of date.

A page has the lesson's text, its picture, its output in a real run, its code, its exercises, and where Flixtrail uses
what it teaches; in English and in Korean.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from lessons.harness import output
from lessons.harness.book import KOREAN_EXERCISE, Lesson, lessons
from lessons.harness.terms import Term, terms
from local.unsupervised_part import ROOT

FOLDER = ROOT / "docs" / "lessons"
GENERATED = "<!-- Made by `python -m lessons.pages`. -->"


@dataclass(frozen=True)
class Words:
    """The headings and notes of a page, in one language."""

    language: str
    code: str
    harness: str
    told: str
    exercise: str
    used: str
    all_lessons: str
    term: str
    meaning: str
    where: str


ENGLISH = Words(
    language="en",
    harness=(
        "`stage` is the lessons' harness: it tells what happens, compares, and asks the broker what it knows. "
        "Everything else is the API of [kombu](https://docs.celeryq.dev/projects/kombu/), as in your own program."
    ),
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
    language="ko",
    harness=(
        "`stage` 는 레슨을 실행하는 도구입니다. 일어나는 일을 알려 주고, 값을 비교하고, 브로커에 상태를 묻습니다. "
        "나머지는 모두 [kombu](https://docs.celeryq.dev/projects/kombu/)의 API이며, "
        "여러분의 프로그램에서도 그대로 씁니다."
    ),
    code="코드",
    told="실행 결과",
    exercise=KOREAN_EXERCISE,
    used="Flixtrail에서는",
    all_lessons="전체 목록",
    term="용어",
    meaning="뜻",
    where="Flixtrail에서 쓰는 곳",
)


def pages() -> dict[Path, str]:
    """Return all pages with their texts. Raises FileNotFoundError, LookupError, ValueError: something is missing."""
    book = lessons()
    made = {FOLDER / "README.md": _index(book), FOLDER / "glossary.md": _glossary(book)}
    for lesson in book:
        made[FOLDER / "en" / f"{lesson.name}.md"] = english(lesson)
        made[FOLDER / "ko" / f"{lesson.name}.md"] = korean(lesson)
    return made


def english(lesson: Lesson) -> str:
    """Return the lesson's page."""
    title = f"{lesson.number}. {lesson.title}"
    return _page(lesson, title, lesson.text, lesson.exercise, ENGLISH)


def korean(lesson: Lesson) -> str:
    """Return the page in Korean. Raises ValueError if the text has no title or no exercise."""
    spoken = lesson.korean
    return _page(lesson, f"{lesson.number}. {spoken.title}", spoken.text, spoken.exercise, KOREAN)


def _page(lesson: Lesson, title: str, text: str, exercise: str, words: Words) -> str:
    other, elsewhere = (
        ("한국어", f"../ko/{lesson.name}.md") if words is ENGLISH else ("English", f"../en/{lesson.name}.md")
    )
    source = lesson.source.relative_to(ROOT)
    code = lesson.source.read_text()
    parts = [
        GENERATED,
        f"# {title}",
        f"[{words.all_lessons}](../README.md) · [{other}]({elsewhere}) · `.venv/bin/flixtrail lesson {lesson.name}`",
        text,
        f"![{lesson.title}](../pictures/{lesson.name}.svg)",
        f"## {words.told}",
        f"```\n{output.kept(lesson.name, words.language).rstrip()}\n```",
        f"## {words.code}",
        *(_program(name) for name in lesson.programs),
        f"[{source}](../../../{source}). {words.harness}",
        f"```python\n{code[code.index('def play(') :].rstrip()}\n```",
        f"## {words.exercise}",
        exercise,
        f"## {words.used}",
        _used(terms(lesson.name), words),
    ]
    return "\n\n".join(parts) + "\n"


def _program(name: str) -> str:
    path = f"lessons/programs/{name}.py"
    return f"[{path}](../../../{path})\n\n```python\n{(ROOT / path).read_text().rstrip()}\n```"


def _used(found: Sequence[Term], words: Words) -> str:
    rows = [f"| {words.term} | {words.meaning} | {words.where} |", "| --- | --- | --- |"]
    for term in found:
        name, meaning = (term.en, term.meaning_en) if words is ENGLISH else (term.ko, term.meaning_ko)
        rows.append(f"| {name} | {meaning} | {_where(term, '../../..', words)} |")
    return "\n".join(rows)


def _where(term: Term, root: str, words: Words) -> str:
    if term.used is None:
        return f"not used: {term.unused}" if words is ENGLISH else f"쓰지 않음: {term.unused_ko}"
    return f"[{term.used[0]}:{term.line}]({root}/{term.used[0]}#L{term.line})"


def _index(book: Sequence[Lesson]) -> str:
    lines = [
        GENERATED,
        "",
        "# Lessons: messaging, to run and to break",
        "",
        "Each lesson is a program that runs on a real RabbitMQ. It shows each step, and proves each sentence with an",
        "answer of the broker. Begin with [hello](en/hello.md): two small programs in two terminals.",
        "",
        "레슨마다 실제 RabbitMQ에서 실행되는 프로그램입니다. 단계마다 일어나는 일을 보여 주고, 문장마다",
        "브로커의 응답으로 증명합니다.",
        "[hello](ko/hello.md)부터 시작하세요. 작은 프로그램 두 개를 두 터미널에서 실행합니다.",
        "",
        "```",
        "make lessons                                               play all lessons, one line for each",
        ".venv/bin/flixtrail lesson                                 list the lessons",
        ".venv/bin/flixtrail lesson exchanges                       play one, step by step",
        ".venv/bin/flixtrail lesson exchanges --ko                  한국어로 실행",
        ".venv/bin/flixtrail lesson exchanges --set x_match=any     change a setting, and see which proof fails",
        "```",
        "",
        "| | English | 한국어 |",
        "| --: | --- | --- |",
    ]
    for lesson in book:
        english_page = f"[{lesson.title}](en/{lesson.name}.md)"
        korean_page = f"[{lesson.korean.title}](ko/{lesson.name}.md)"
        lines.append(f"| {lesson.number} | {english_page} | {korean_page} |")
    lines += [
        "",
        "## Concept, lesson, and where Flixtrail uses it",
        "",
        "| Concept | 개념 | Lesson | Where Flixtrail uses it |",
        "| --- | --- | --- | --- |",
    ]
    for lesson in book:
        link = f"[{lesson.name.replace('_', ' ')}](en/{lesson.name}.md)"
        lines += [
            f"| {term.en} | {term.ko} | {link} | {_where(term, '../..', ENGLISH)} |" for term in terms(lesson.name)
        ]
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
    """Return the pages that are out of date, and those that no lesson has any more."""
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
