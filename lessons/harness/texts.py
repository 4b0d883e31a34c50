"""Finds the texts that a lesson tells, in its source: `lessons/ko/NAME.toml` needs a translation for each."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from lessons.harness.book import Lesson

#: How many arguments of these methods of `stage` are texts. None: all.
TEXTS = {"say": 1, "prove": 1, "really": 2, "moves": None}
#: A text that depends on a condition is first assigned to a variable with such a name.
VARIABLES = {"text", "myth"}


def texts(lesson: Lesson) -> list[str]:
    """Return the texts in their order, each once. Raises ValueError for an f-string: it cannot be translated."""
    tree = ast.parse(lesson.source.read_text())
    found = [text for node in ast.walk(tree) for text in _told(node, lesson.name)]
    return list(dict.fromkeys([*found, *lesson.why.values()]))


def _told(node: ast.AST, name: str) -> Iterator[str]:
    if isinstance(node, ast.Assign):
        targets = [target for one in node.targets for target in ast.walk(one) if isinstance(target, ast.Name)]
        if VARIABLES & {target.id for target in targets}:
            for part in ast.walk(node.value):
                # Only what reads like a sentence: the other values of such an assignment are no texts.
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.endswith("."):
                    yield part.value
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in TEXTS):
        return
    for argument in node.args[: TEXTS[node.func.attr]]:
        if isinstance(argument, ast.JoinedStr):
            raise ValueError(  # noqa: TRY004 (its value is wrong)
                f"{name}, line {argument.lineno}: give the values as keywords, not in an f-string"
            )
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value
