"""The supervisor over all parts: `supervisord`, spoken to over its Unix socket (docs/decisions/0003-supervisor.md).

It starts a part again that died, writes and rotates logs, and stops what it is told to. When which part is started and
stopped is decided in `flixtrail.local.stack`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.states import RUNNING_STATES, STOPPED_STATES, ProcessStates
from supervisor.xmlrpc import Faults, SupervisorTransport

from flixtrail.local.errors import DemoError
from flixtrail.local.leftovers import STATE_MARK
from flixtrail.local.state import State

#: supervisord looks after dead parts once a second, and after every request it answers. Asked this often, it has
#: started a dead part again a tenth of a second later (docs/decisions/0003-supervisor.md).
POLL_S = 0.1
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


class Supervisor:
    """The running supervisor of one state folder. Every method raises SupervisorAway when it does not answer."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.socket = state.socket_folder("supervisor") / "supervisor.sock"
        self._transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        self._rpc: Any = ServerProxy("http://127.0.0.1", transport=self._transport).supervisor

    def launch(self) -> subprocess.Popen[bytes]:
        """Start supervisord, with no parts. It stops everything by itself when this process is killed."""
        (self.state.run / "supervisord.conf").write_text(self._configuration())
        argv = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.state.run / "supervisord.conf")]
        if setpriv := shutil.which("setpriv"):
            argv = [setpriv, "--pdeathsig", "TERM", *argv]
        with self.state.log("supervisord").open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal reaches us only, and we stop the parts in their order.
                start_new_session=True,
                cwd=self.state.run,
                env={**os.environ, STATE_MARK: str(self.state.folder)},
            )

    def _configuration(self) -> str:
        user = "user=root" if os.geteuid() == 0 else ""
        return f"""\
[supervisord]
logfile={_escape(self.state.log("supervisord"))}
logfile_maxbytes={LOG_BYTES}
logfile_backups={LOG_BACKUPS}
pidfile={_escape(self.state.run / "supervisord.pid")}
childlogdir={_escape(self.state.logs)}
nodaemon=true
silent=true
{user}
[unix_http_server]
file={_escape(self.socket)}
chmod=0600
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[include]
files=parts/*.conf
"""

    def add(self, part: Part) -> None:
        """Make a part known, and start it."""
        from flixtrail.local.state import write_json

        description = self.state.parts / f"{part.name}.json"
        write_json(
            description,
            {
                "name": part.name,
                "argv": part.argv,
                "environment": {**part.environment, STATE_MARK: str(self.state.folder), "FLIXTRAIL_PART": part.name},
                "state": str(self.state.folder),
                "works_in": str(part.works_in) if part.works_in else None,
            },
        )
        command = [sys.executable, "-m", "flixtrail.local.launcher", str(description)]
        (self.state.parts / f"{part.name}.conf").write_text(f"""\
[program:{part.name}]
command={_escape(shlex.join(command))}
directory={_escape(self.state.run)}
priority={part.priority}
autostart=false
autorestart=true
startsecs={START_S}
startretries={START_RETRIES}
stopsignal={part.stop_signal}
stopwaitsecs={part.stop_wait_s}
killasgroup=true
redirect_stderr=true
stdout_logfile={_escape(self.state.log(part.name))}
stdout_logfile_maxbytes={LOG_BYTES}
stdout_logfile_backups={LOG_BACKUPS}
""")
        self._call("reloadConfig")
        self._call("addProcessGroup", part.name, ignore=Faults.ALREADY_ADDED)
        self.start(part.name)

    def start(self, name: str) -> None:
        """Start a part that is known."""
        self._call("startProcess", name, False, ignore=Faults.ALREADY_STARTED)  # noqa: FBT003

    def stop(self, name: str) -> None:
        """Ask a part to stop, without waiting for it; it does not come back by itself."""
        self._call("stopProcess", name, False, ignore=Faults.NOT_RUNNING)  # noqa: FBT003

    def status(self) -> dict[str, PartStatus]:
        """All parts by name. Asking also wakes the supervisor."""
        return {info["name"]: _status(info) for info in self._call("getAllProcessInfo")}

    def shutdown(self) -> None:
        """Ask the supervisor itself to end, with everything that still runs."""
        self._call("shutdown")

    def _call(self, method: str, *arguments: Any, ignore: int | None = None) -> Any:
        try:
            return getattr(self._rpc, method)(*arguments)
        except Fault as fault:
            if fault.faultCode == ignore:
                return None
            raise DemoError(f"supervisor: {method}{arguments}: {fault.faultString}") from None
        except (OSError, HTTPException) as error:
            raise SupervisorAway(f"the supervisor does not answer: {error}") from None
        finally:
            # One that failed once fails for ever; and a new connection to a Unix socket costs nothing.
            self._transport.close()


class SupervisorAway(DemoError):
    """supervisord does not answer: it has not started yet, or is gone."""


def tree(pid: int | None) -> list[psutil.Process]:
    """A part's process and all below it; nothing when it is gone."""
    if pid is None:
        return []
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _status(info: Mapping[str, Any]) -> PartStatus:
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
