"""`.venv`: when it is made, and when it stays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from requirements import venv
from tests.demo import HARD_NAME


class Project:
    """A folder with what the environment is made from, without packages to install."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "requirements").mkdir(parents=True)
        for name in ("demo", "dev", "bench"):
            (folder / "requirements" / f"{name}.txt").touch()
        (folder / "pyproject.toml").write_text('[project]\nname = "flixtrail"\nversion = "9"\n')
        package = folder / "flixtrail"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text("import sys; print(__file__, sys.argv[1:])\n")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    one = Project(tmp_path / HARD_NAME)
    move_to(one.folder, monkeypatch)
    monkeypatch.delenv("PYTHON", raising=False)

    def run(*argv: str, **_: object) -> None:
        if argv[1:3] == ("-m", "venv"):
            # As `python -m venv`, in a hundredth of the time.
            subprocess.run([*argv, "--without-pip"], check=True)

    monkeypatch.setattr(venv, "run", run)
    return one


def move_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venv, "ROOT", folder)
    monkeypatch.chdir(folder)


def made(capsys: pytest.CaptureFixture[str], wanted: str = "demo") -> str:
    """What it says."""
    venv.main(Path(".venv"), wanted)
    return capsys.readouterr().out


def test_it_is_made_once_and_works_from_everywhere(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert made(capsys).startswith("making .venv for the first time")
    assert made(capsys) == ""
    link = project.folder.parent / "link"
    link.symlink_to(project.folder / ".venv" / "bin" / "flixtrail")
    for program in (project.folder / ".venv" / "bin" / "flixtrail", link):
        environment = {**os.environ, "PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere"}
        done = subprocess.run([program, "a b"], cwd="/", capture_output=True, text=True, check=True, env=environment)
        said = done.stdout
        assert said == f"{project.folder}/flixtrail/__main__.py ['a b']\n"
    assert made(capsys, "dev").startswith("adding to .venv")
    assert made(capsys, "dev") == made(capsys) == ""


def test_after_the_folder_was_moved_or_copied_it_is_made_anew(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(capsys)
    for name in ("copied", "moved"):
        folder = project.folder.with_name(name)
        if name == "copied":
            shutil.copytree(project.folder, folder, symlinks=True)
        else:
            project.folder.rename(folder)
        move_to(folder, monkeypatch)
        said = made(capsys)
        assert len(said.splitlines()) == 1
        assert f"anew: this folder was {project.folder}, and was moved or copied" in said
        program = subprocess.run([folder / ".venv/bin/flixtrail"], cwd="/", capture_output=True, text=True, check=True)
        assert program.stdout.startswith(f"{folder}/flixtrail/"), "and not the other folder's sources"
        assert made(capsys) == ""


def test_with_another_python_it_is_made_anew(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made(capsys)
    stamp = project.folder / ".venv" / "made-from.json"
    stamp.write_text(json.dumps(json.loads(stamp.read_text()) | {"python": "3.10"}))
    assert "its Python was 3.10 and is" in made(capsys)
    (project.folder / ".venv" / "bin" / "python").unlink()
    assert "is gone" in made(capsys)
    monkeypatch.setenv("PYTHON", sys.executable)
    assert made(capsys) == "", "it has that version already"
    monkeypatch.setattr(venv, "version", lambda: "3.99")
    assert "PYTHON names Python 3.99" in made(capsys)


def test_other_pins_and_an_interrupted_start_make_it_anew_and_a_touched_file_does_not(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    made(capsys, "dev")
    for path in project.folder.rglob("*.txt"):
        os.utime(path)  # as `git checkout` does, or a clock that was wrong
    assert made(capsys, "dev") == ""
    (project.folder / "requirements" / "dev.txt").write_text("# another\n")
    assert "other versions are pinned" in made(capsys)
    (project.folder / ".venv" / "made-from.json").unlink()
    assert "not complete" in made(capsys)


def test_an_environment_of_an_earlier_makefile_stays(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    made(capsys, "dev")
    (project.folder / ".venv" / "made-from.json").unlink()
    for name in (".demo", ".dev"):
        (project.folder / ".venv" / name).touch()
    (project.folder / ".venv" / "pyvenv.cfg").write_text(f"command = -m venv {project.folder}/.venv\n")
    assert made(capsys, "dev") == ""


def test_what_cannot_work_is_a_sentence(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="Rename the folder"):
        venv.main(project.folder / "a:b" / ".venv", "demo")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SystemExit, match="Cannot write to"):
        venv.main(Path(".venv"), "demo")
