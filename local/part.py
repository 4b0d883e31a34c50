"""One program under the supervisor: its description, its section in supervisord's file, and its status."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.states import RUNNING_STATES, STOPPED_STATES, ProcessStates

from local.state import State

#: A part that has lived for this many seconds has started.
START_S = 1
#: Attempts to start a part that dies earlier, 1, 2 and 3 seconds apart. Then the supervisor gives up, and the demo
#: reports it.
START_RETRIES = 3

LOG_BYTES = 5_000_000
LOG_BACKUPS = 2


@dataclass(frozen=True)
class Part:
    """One program. `priority`: if the supervisor stops all parts by itself, a part with a smaller
    number stops later.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    priority: int = 50
    stop_signal: str = "TERM"
    #: Seconds after which the part is killed, with all its children.
    stop_wait_s: int = 5
    #: A folder in which only this part's processes work.
    works_in: Path | None = None


@dataclass(frozen=True)
class PartStatus:
    """What the supervisor knows about a part."""

    name: str
    pid: int | None
    running: bool  #: its process exists
    stopped: bool  #: it has no process and will not be restarted automatically
    failed: bool  #: it died too often at its start


def supervisor_section(state: State, socket: Path) -> str:
    """Write supervisord's own section: it runs in the foreground and listens only on its socket."""
    user = "user=root" if os.geteuid() == 0 else ""
    return f"""\
[supervisord]
logfile={state.safe_path}/log/supervisord.log
logfile_maxbytes={LOG_BYTES}
logfile_backups={LOG_BACKUPS}
pidfile={state.safe_path}/run/supervisord.pid
childlogdir={state.safe_path}/log
nodaemon=true
silent=true
{user}
[unix_http_server]
file={socket}
chmod=0600
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""


def part_section(state: State, part: Part) -> str:
    """Write one part's section. The script `run/launch` starts it (local/supervisor.py)."""
    run = state.safe_path / "run"
    return f"""\
[program:{part.name}]
command=/bin/sh {run}/launch {run}/parts/{part.name}.json
directory={run}
priority={part.priority}
autostart=false
autorestart=true
startsecs={START_S}
startretries={START_RETRIES}
stopsignal={part.stop_signal}
stopwaitsecs={part.stop_wait_s}
killasgroup=true
redirect_stderr=true
stdout_logfile={state.safe_path}/log/{part.name}.log
stdout_logfile_maxbytes={LOG_BYTES}
stdout_logfile_backups={LOG_BACKUPS}
"""


def status_of(info: Mapping[str, Any]) -> PartStatus:
    """Convert supervisord's `getProcessInfo` to a PartStatus."""
    state = info["state"]
    return PartStatus(
        name=info["name"],
        pid=info["pid"] or None,
        running=state in RUNNING_STATES and bool(info["pid"]),
        stopped=state in STOPPED_STATES and state not in {ProcessStates.FATAL, ProcessStates.EXITED},
        failed=state in {ProcessStates.FATAL, ProcessStates.UNKNOWN},
    )
