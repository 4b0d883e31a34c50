"""A folder imports only from folders before it in docs/decisions/0020-the-house.md: no arrow runs up."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
#: In the order of the decision. Folders on one line know nothing of each other.
ORDER = (
    ("view_events",),
    ("service",),
    ("celeryconfig",),
    ("safe_consumer",),
    ("streaming_app", "history_worker"),
    ("local",),
    ("lessons",),
    ("flixtrail",),
    ("proof",),
    ("tests",),
)
LEVELS = {folder: level for level, folders in enumerate(ORDER) for folder in folders}
#: The rooms of the streaming app, in the same sense.
ROOMS = (("access",), ("videos",), ("recording",), ("routes",))
ROOM_LEVELS = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}


def modules(folder: str) -> list[Path]:
    path = ROOT / folder
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def imported(module: Path) -> Iterator[str]:
    """The full names that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("folder", LEVELS)
def test_no_import_runs_up(folder: str) -> None:
    allowed = {other for other, level in LEVELS.items() if level < LEVELS[folder]} | {folder}
    wrong = [
        f"{module.relative_to(ROOT)} imports {name}"
        for module in modules(folder)
        for name in imported(module)
        if name.split(".")[0] in LEVELS and name.split(".")[0] not in allowed
    ]
    assert not wrong


@pytest.mark.parametrize("room", ROOM_LEVELS)
def test_no_room_of_the_streaming_app_imports_a_later_one(room: str) -> None:
    later = {other for other, level in ROOM_LEVELS.items() if level >= ROOM_LEVELS[room]} - {room}
    wrong = [
        f"{module.relative_to(ROOT)} imports {name}"
        for module in modules(f"streaming_app/{room}")
        for name in imported(module)
        if name.startswith("streaming_app.") and name.split(".")[1] in later
    ]
    assert not wrong
