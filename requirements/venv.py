"""`python3 requirements/venv.py FOLDER demo|dev|bench`: makes the virtual environment FOLDER, or keeps it.

The Makefile calls this before every target. It compares the environment with what it was made from (`made-from.json` in
it). So it contains only pinned packages, and it works after this folder was moved or copied, and after Python was
upgraded. If something has changed, it prints a line about it and makes the environment again.
"""
# ruff: noqa: INP001 (a script beside the files that it installs; it starts Python and pip)

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: What is installed, in this order. `dev` only adds to `demo`, so a running demo keeps its environment.
SETS = {"demo": ["demo"], "dev": ["demo", "dev"], "bench": ["bench"]}

#: pip's progress is printed once for this many packages.
PACKAGES_A_LINE = 20

#: The content of `.venv/bin/flixtrail`, instead of pip's script. pip's script begins with the path of its Python. The
#: kernel cuts that path at a space and after 127 bytes, and it is wrong after the folder was moved.
LAUNCHER = """\
#!/bin/sh
# Made by requirements/venv.py. It finds its Python beside itself, also when it is called through a symbolic link.
unset PYTHONHOME PYTHONPATH
exec "$(dirname "$(readlink -f "$0")")/python" -X utf8 -m flixtrail "$@"
"""


def main(venv: Path, wanted: str) -> None:
    """Make or change the environment if needed. Exit status 1: it failed; the reason was printed."""
    if os.pathsep in str(venv.absolute()):
        sys.exit(f"Python cannot work in a folder with `{os.pathsep}` in its name: {ROOT}. Rename the folder.")
    if not os.access(venv if venv.exists() else venv.absolute().parent, os.W_OK):
        sys.exit(f"Cannot write to {venv.absolute()}: it belongs to another user, or to a disk that is read-only.")
    made_from = read(venv) or adopted(venv)
    reason = why_anew(venv, made_from)
    if reason:
        check_python()
        say(f"making {venv} {reason} (about a minute)")
        shutil.rmtree(venv, ignore_errors=True)
        run(sys.executable, "-m", "venv", str(venv))
        made_from = identity(venv)
    for name in SETS[wanted]:
        if made_from.get(name) != digest(f"requirements/{name}.txt"):
            if not reason:
                say(f"adding to {venv} what tests and lint need (about a minute, once)")
            pip(venv, f"requirements/{name}.txt")
            made_from[name] = digest(f"requirements/{name}.txt")
            write(venv, made_from)
    if wanted != "bench" and made_from.get("package") != package():
        install_flixtrail(venv)
        write(venv, {**made_from, "package": package()})


def install_flixtrail(venv: Path) -> None:
    """Install Flixtrail itself from this folder: its sources, and the program `flixtrail`.

    It does what `pip install --editable .` does. That command fails below a folder with a `$` in its name.
    """
    ask = "import sysconfig; print(ascii(sysconfig.get_path('purelib')))"
    packages = Path(ast.literal_eval(output(str(venv / "bin" / "python"), "-c", ask)))
    for left in packages.glob("__editable__*flixtrail*"):
        left.unlink()  # made by an earlier Makefile
    (packages / "flixtrail.pth").write_text(f"import sys; sys.path.append({str(ROOT)!a})\n")
    # Metadata for pip and importlib.metadata.
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    about = packages / f"flixtrail-{found['version']}.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: flixtrail\nVersion: {found['version']}\n")
    launcher = venv / "bin" / "flixtrail"
    launcher.write_text(LAUNCHER)
    launcher.chmod(0o755)


def why_anew(venv: Path, made_from: dict[str, str]) -> str | None:
    """Return the reason why the environment must be made again. None: it can stay."""
    if not venv.exists():
        return "for the first time"
    if not made_from:
        return "anew: it is not complete"
    found = identity(venv)
    was, now = made_from["python"], found.get("python")
    asked_for = version() if os.environ.get("PYTHON") else now
    pins = {name: digest(f"requirements/{name}.txt") for name in ("demo", "dev", "bench")}
    reasons = {
        f"its Python ({was}) is gone": now is None,
        f"this folder was {made_from['folder']}, and was moved or copied": made_from["folder"] != str(ROOT),
        f"its Python was {was} and is {now} now": was != now,
        f"PYTHON names Python {asked_for}, and it has {now}": asked_for != now,
        "other versions are pinned": any(made_from.get(name, pin) != pin for name, pin in pins.items()),
    }
    return next((f"anew: {reason}" for reason, holds in reasons.items() if holds), None)


def identity(venv: Path) -> dict[str, str]:
    """Return the environment's folder and Python version. Empty if that Python does not run."""
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return {"folder": str(ROOT), "python": output(str(venv / "bin" / "python"), "-c", ask)}
    except (OSError, subprocess.SubprocessError):
        return {}


def version() -> str:
    """Return the version of the Python that runs this, such as 3.11."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def check_python() -> None:
    """Exit with an instruction if this Python cannot make environments."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        sys.exit(f"'{sys.executable}' comes without its venv module. Debian, Ubuntu: apt install python3-venv")


def pip(venv: Path, requirements: str) -> None:
    """Install what the file pins, and print a line now and then. If pip fails, it prints its own errors."""
    total = sum("==" in line for line in (ROOT / requirements).read_text().splitlines())
    options = ("--disable-pip-version-check", "--progress-bar", "off", "--require-hashes", "-r", requirements)
    found = 0

    def progress(line: str) -> None:
        nonlocal found
        if line.startswith("Collecting "):
            found += 1
            if found % PACKAGES_A_LINE == 0:
                say(f"  {found} of {total} packages")
        elif line.startswith("Installing collected packages"):
            say("  installing them")

    run(str(venv / "bin" / "python"), "-m", "pip", "install", *options, progress=progress)


def run(*argv: str, progress: Callable[[str], None] = lambda _: None) -> None:
    """Run a program in the project's folder, and pass its output on to `progress`. Exits if it fails."""
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            progress(line)
    if process.returncode:
        sys.exit(1)


def output(*argv: str) -> str:
    """Return a program's output. Raises OSError or subprocess.SubprocessError."""
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout.strip()


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def digest(path: str) -> str:
    """Return a hash of a file's content."""
    return hashlib.sha256((ROOT / path).read_bytes()).hexdigest()


def adopted(venv: Path) -> dict[str, str]:
    """Return what an environment without `made-from.json` was made from. Earlier Makefiles left a stamp
    for each step.
    """
    stamps = {name: venv / f".{name}" for name in ("demo", "dev")}
    found = identity(venv)
    if not found or not stamps["demo"].exists() or str(venv.absolute()) not in (venv / "pyvenv.cfg").read_text():
        return {}
    for name, stamp in stamps.items():
        if stamp.exists() and stamp.stat().st_mtime >= (ROOT / f"requirements/{name}.txt").stat().st_mtime:
            found[name] = digest(f"requirements/{name}.txt")
    return found


def package() -> str:
    """Return a hash of what `install_flixtrail` writes."""
    return hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + LAUNCHER.encode()).hexdigest()


def read(venv: Path) -> dict[str, str]:
    """Return what the environment was made from. Empty if unknown."""
    try:
        return dict(json.loads((venv / "made-from.json").read_text()))
    except (OSError, ValueError):
        return {}


def write(venv: Path, made_from: dict[str, str]) -> None:
    """Store what the environment was made from."""
    (venv / "made-from.json").write_text(json.dumps(made_from, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
