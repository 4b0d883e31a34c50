"""What the demo prints once it is ready: where everything is, and what to try next."""

from __future__ import annotations

import shlex
from pathlib import Path

from flixtrail.local.installed import HOW_TO_INSTALL
from flixtrail.local.stack import Stack

LEARNER_MODE = f"""\
[bold]Learner mode[/]: the messages lie in PostgreSQL (pgmq), there is no RabbitMQ here. Recording, any number of
workers and redelivery after kill -9 work. Absent: publisher confirms, the broker's dead letters, Flower.
To see those, install RabbitMQ and start again.  {HOW_TO_INSTALL}"""


def greeting(stack: Stack) -> str:
    """Several lines, in rich's markup."""
    lines = [f"  the library       {stack.addresses.web_url}"]
    if stack.has_flower:
        password = stack.state.secret("flower_password")
        lines.append(f"  Flower            {stack.addresses.flower_url}  (user flixtrail, password {password})")
    lines += [f"  logs              {stack.state.logs}", ""]
    if stack.learner_mode:
        lines += [LEARNER_MODE, ""]
    program = command_line(stack.state.folder)
    lines += [
        "Try in a second terminal, and in a third:",
        f"  {program} watch            the work queue, live",
        f"  {program} send 1000        a thousand views",
        f"  {program} workers kill     kill -9 one that holds messages: they go back, another takes them",
        "Ctrl-C stops everything.",
    ]
    return "\n".join(lines)


def command_line(state: Path) -> str:
    """How `flixtrail` is called for this state folder."""
    chosen = "" if state == Path("var").resolve() else f"STATE={shlex.quote(str(state))} "
    return f"{chosen}.venv/bin/flixtrail"
