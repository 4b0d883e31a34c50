"""One program under the supervisor: what it is, how supervisord's file says that, and how it fares."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.states import RUNNING_STATES, STOPPED_STATES, ProcessStates

from flixtrail.local.state import State

#: A part that lives this long has started.
START_S = 1
#: Attempts of a part that dies earlier, 1, 2 and 3 seconds apart; then the supervisor leaves it and we say so.
START_RETRIES = 3

LOG_BYTES = 5_000_000
LOG_BACKUPS = 2


@dataclass(frozen=True)
class Part:
    """One program. `priority`: the smaller, the longer it stays when all are stopped without us."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    priority: int = 50
    stop_signal: str = "TERM"
    #: Then it is killed, with all its children.
    stop_wait_s: int = 5
    #: A folder in which only this part's processes work.
    works_in: Path | None = None


@dataclass(frozen=True)
class PartStatus:
    """What the supervisor knows about a part."""

    name: str
    pid: int | None
    running: bool  #: its process is there
    stopped: bool  #: it is not there and will not come back by itself
    failed: bool  #: it died too often at its start


def supervisor_section(state: State, socket: Path) -> str:
    """Supervisord's own settings: in the foreground, and reached over its socket only."""
    user = "user=root" if os.geteuid() == 0 else ""
    return f"""\
[supervisord]
logfile={_escape(state.log("supervisord"))}
logfile_maxbytes={LOG_BYTES}
logfile_backups={LOG_BACKUPS}
pidfile={_escape(state.run / "supervisord.pid")}
childlogdir={_escape(state.logs)}
nodaemon=true
silent=true
{user}
[unix_http_server]
file={_escape(socket)}
chmod=0600
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""


def part_section(state: State, part: Part, description: Path) -> str:
    """One part's settings. `description` is the file that the launcher reads."""
    command = [sys.executable, "-m", "flixtrail.local.launcher", str(description)]
    return f"""\
[program:{part.name}]
command={_escape(shlex.join(command))}
directory={_escape(state.run)}
priority={part.priority}
autostart=false
autorestart=true
startsecs={START_S}
startretries={START_RETRIES}
stopsignal={part.stop_signal}
stopwaitsecs={part.stop_wait_s}
killasgroup=true
redirect_stderr=true
stdout_logfile={_escape(state.log(part.name))}
stdout_logfile_maxbytes={LOG_BYTES}
stdout_logfile_backups={LOG_BACKUPS}
"""


def status_of(info: Mapping[str, Any]) -> PartStatus:
    """What supervisord's `getProcessInfo` means."""
    state = info["state"]
    return PartStatus(
        name=info["name"],
        pid=info["pid"] or None,
        running=state in RUNNING_STATES and bool(info["pid"]),
        stopped=state in STOPPED_STATES and state not in {ProcessStates.FATAL, ProcessStates.EXITED},
        failed=state in {ProcessStates.FATAL, ProcessStates.UNKNOWN},
    )


def _escape(text: object) -> str:
    """As supervisord's configuration wants it: `%` begins an expansion there."""
    return str(text).replace("%", "%%")
