"""Formats commands that the user can paste: they work as printed, in the user's current folder."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

#: The default state folder (flixtrail/commands/options.py).
DEFAULT_STATE = Path("var")
INSTALLED = Path(sys.executable).with_name("flixtrail")


def flixtrail_command(state: Path | None = None) -> str:
    """Return `flixtrail` for this state folder: `.venv/bin/flixtrail`, or `STATE='/my demos/a'
    /home/me/.venv/bin/flixtrail`.

    Without a state folder: the one that the current command uses.
    """
    state = state or _current_state()
    chosen = "" if state.resolve() == DEFAULT_STATE.resolve() else f"STATE={shlex.quote(str(state.resolve()))} "
    return f"{chosen}{_flixtrail()}"


def cd_command() -> str:
    """Return `cd FOLDER`, for a shell in another folder."""
    return f"cd {shlex.quote(str(Path.cwd()))}"


def python_command() -> str:
    """Return the Python that runs this, for `-m`: `.venv/bin/python`."""
    return _relative(Path(sys.executable))


def _current_state() -> Path:
    """Return the state folder of the current command, or of the environment if there is no command."""
    import click

    context = click.get_current_context(silent=True)
    found = context.params.get("state") if context else None
    return Path(found or os.environ.get("STATE") or DEFAULT_STATE)


def _flixtrail() -> str:
    if not INSTALLED.exists():
        return f"{shlex.quote(sys.executable)} -m flixtrail"
    return _relative(INSTALLED)


def _relative(path: Path) -> str:
    """Return a relative path if it is below the user's current folder, otherwise the whole path."""
    below = path.is_relative_to(Path.cwd())
    return shlex.quote(str(path.relative_to(Path.cwd()) if below else path))
