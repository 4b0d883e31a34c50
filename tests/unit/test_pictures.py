"""Pictures are made from text: each shows what its text says now."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
SOURCES = sorted(FOLDER.parent.rglob("*.dot"))


@pytest.fixture(scope="module")
def draw() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw", FOLDER / "draw.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_picture_is_of_the_text_beside_it(draw: ModuleType, source: Path) -> None:
    picture = source.with_suffix(".svg").read_text()
    assert f"<!-- {source.name} {draw.digest(source)} -->" in picture, "out of date: `make pictures` draws it anew"


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_a_picture_has_colours_for_both_themes_and_none_of_its_own(source: Path) -> None:
    picture = source.with_suffix(".svg").read_text()
    ET.fromstring(picture)
    assert "prefers-color-scheme: dark" in picture
    drawing = picture.partition("</style>")[2]
    assert 'fill="black"' not in drawing
    assert 'stroke="' not in drawing


def test_the_readme_shows_every_picture() -> None:
    readme = (FOLDER.parents[1] / "README.md").read_text()
    for picture in [*FOLDER.glob("*.svg"), *FOLDER.glob("*.png")]:
        assert f"docs/pictures/{picture.name}" in readme
