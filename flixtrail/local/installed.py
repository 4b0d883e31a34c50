"""Where RabbitMQ and Erlang are on this machine, if they are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

#: Ordinary users have no sbin in their PATH.
MORE_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/lib/rabbitmq/bin")

#: How to get one, for the banner of learner mode.
HOW_TO_INSTALL = "Debian, Ubuntu: apt install rabbitmq-server   macOS: brew install rabbitmq"


def server_script() -> Path | None:
    """RabbitMQ's own start script, None where it is not installed.

    Debian's /usr/sbin/rabbitmq-server leads to `rabbitmq-script-wrapper`, which insists on root and becomes the user
    `rabbitmq`. The script that it wraps has kept its name and lies beside `rabbitmq-env`.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), *MORE_FOLDERS])
    for folder in path.split(os.pathsep):
        script = (Path(folder) / "rabbitmq-server").resolve()
        if (
            script.name == "rabbitmq-server"
            and (script.parent / "rabbitmq-env").exists()
            and os.access(script, os.X_OK)
        ):
            return script
    return None


def epmd_program() -> Path | None:
    """Erlang's port mapper, None where there is no Erlang."""
    erl = shutil.which("erl")
    if erl is None:
        return None
    # .../erlang/bin/erl beside .../erlang/erts-13.1.5/bin/epmd
    beside = sorted(Path(erl).resolve().parent.parent.glob("erts-*/bin/epmd"))
    found = str(beside[-1]) if beside else shutil.which("epmd")
    return Path(found) if found else None


def is_installed() -> bool:
    """Whether a private node can be started on this machine."""
    return server_script() is not None and epmd_program() is not None
