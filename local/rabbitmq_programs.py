"""Finds RabbitMQ and Erlang on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

#: Folders to search besides PATH: the PATH of ordinary users has no sbin, and a PATH may be incomplete.
MORE_FOLDERS = (
    *("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/lib/rabbitmq/bin"),
    *("/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"),
)

#: How to install RabbitMQ, for the banner of learner mode.
HOW_TO_INSTALL = "Debian, Ubuntu: apt install rabbitmq-server   macOS: brew install rabbitmq"


def server_script() -> Path | None:
    """Return RabbitMQ's own start script, or None if it is not installed.

    Debian's /usr/sbin/rabbitmq-server leads to `rabbitmq-script-wrapper`, which requires root and becomes the user
    `rabbitmq`. The script behind the wrapper has the usual name and is in the same folder as `rabbitmq-env`.
    """
    for folder in search_path().split(os.pathsep):
        try:
            script = Path(folder, "rabbitmq-server").resolve()
            beside = script.with_name("rabbitmq-env").exists()
        except (OSError, RuntimeError):
            continue  # unreadable, or not a folder
        if script.name == "rabbitmq-server" and beside and os.access(script, os.X_OK):
            return script
    return None


def search_path() -> str:
    """Return PATH, followed by the folders where RabbitMQ and Erlang usually are."""
    path = os.environ.get("PATH", "").split(os.pathsep)
    return os.pathsep.join(filter(None, dict.fromkeys([*path, *MORE_FOLDERS])))


def epmd_program() -> Path | None:
    """Return the path of Erlang's port mapper, or None if there is no Erlang."""
    erl = shutil.which("erl", path=search_path())
    if erl is None:
        return None
    # For example .../erlang/bin/erl and .../erlang/erts-13.1.5/bin/epmd
    beside = sorted(Path(erl).resolve().parent.parent.glob("erts-*/bin/epmd"))
    found = str(beside[-1]) if beside else shutil.which("epmd", path=search_path())
    return Path(found) if found else None


def is_installed() -> bool:
    """Return whether a private node can be started on this machine."""
    return server_script() is not None and epmd_program() is not None
