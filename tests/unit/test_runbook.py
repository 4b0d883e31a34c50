"""The words that docs/operations.md searches the logs for are words that the services log."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SEARCH = re.compile(
    r"logs (?P<service>streaming-app|history-worker) \| grep (?:-E )?(?:'(?P<quoted>[^']+)'|(?P<word>\w+))"
)
FOLDERS = {
    "streaming-app": ("streaming_app", "service"),
    "history-worker": ("safe_consumer", "history_worker", "service"),
}
#: A field of a log line, and its value.
FIELD = re.compile(r'"(\w+)": \w+')


def searched() -> list[tuple[str, str]]:
    """Pairs of a service and a word or sentence that is searched for in its logs."""
    return [
        (found["service"], words)
        for found in SEARCH.finditer(OPERATIONS)
        for words in (found["quoted"] or found["word"]).split("|")
    ]


def test_there_are_such_searches() -> None:
    assert len(searched()) >= 7


def log_calls(source: str) -> list[str]:
    """The calls of a logger, as they are written: `log.info(...)`, `log_it(...)`."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [ast.unparse(call) for call in calls if ast.unparse(call.func).startswith(("log.", "log_it"))]


@pytest.mark.parametrize(("service", "words"), searched())
def test_what_is_searched_for_is_logged(service: str, words: str) -> None:
    field = FIELD.fullmatch(words)
    wanted = f"{field[1]}=" if field else words
    sources = [path.read_text() for folder in FOLDERS[service] for path in (ROOT / folder).rglob("*.py")]
    assert any(wanted in call for source in sources for call in log_calls(source))
