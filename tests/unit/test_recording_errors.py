"""The errors of `streaming_app/recording/`: one module, one base class."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from streaming_app import recording
from streaming_app.recording import errors
from streaming_app.recording.errors import RecordingError

FOLDER = Path(recording.__path__[0])


def classes(module: Path) -> list[ast.ClassDef]:
    return [node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.ClassDef)]


def is_error(name: str) -> bool:
    found = getattr(errors, name, None)
    return isinstance(found, type) and issubclass(found, Exception)


def test_every_error_has_the_same_base_class() -> None:
    names = [node.name for node in classes(FOLDER / "errors.py") if is_error(node.name)]
    assert len(names) > 5
    assert all(issubclass(getattr(errors, name), RecordingError) for name in names)


@pytest.mark.parametrize("module", sorted(FOLDER.glob("*.py")), ids=lambda module: module.name)
def test_no_other_module_has_an_error_of_its_own(module: Path) -> None:
    if module.name == "errors.py":
        return
    bases = {ast.unparse(base) for node in classes(module) for base in node.bases}
    assert not {base for base in bases if base.endswith(("Exception", "Error")) or is_error(base)}
