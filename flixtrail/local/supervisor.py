"""The supervisor over all parts: `supervisord`, spoken to over its Unix socket (docs/decisions/0003-supervisor.md).

It starts a part again that died, writes and rotates logs, and stops what it is told to. When which part is started and
stopped is decided in `flixtrail.local.stack`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from flixtrail.local.errors import DemoError
from flixtrail.local.leftovers import PART_MARK, STATE_MARK
from flixtrail.local.part import Part, PartStatus, part_section, status_of, supervisor_section
from flixtrail.local.state import State, read_json, write_json

#: supervisord looks after dead parts once a second, and after every request it answers. Asked this often, it has
#: started a dead part again a tenth of a second later (docs/decisions/0003-supervisor.md).
POLL_S = 0.1


class Supervisor:
    """The running supervisor of one state folder. Every method raises SupervisorAway when it does not answer."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.socket = state.socket_folder("supervisor") / "supervisor.sock"
        self._transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        self._rpc: Any = ServerProxy("http://127.0.0.1", transport=self._transport).supervisor

    def launch(self) -> subprocess.Popen[bytes]:
        """Start supervisord, with no parts. It stops everything by itself when this process is killed."""
        self._configure()
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

    def _configure(self) -> None:
        """Write supervisord's file: itself, and every part that is known."""
        parts = [path.read_text() for path in sorted(self.state.parts.glob("*.conf"))]
        (self.state.run / "supervisord.conf").write_text("".join([supervisor_section(self.state, self.socket), *parts]))

    def add(self, part: Part) -> None:
        """Make a part known, and start it."""
        description = self._description(part.name)
        write_json(
            description,
            {
                "name": part.name,
                "argv": part.argv,
                "environment": {**part.environment, STATE_MARK: str(self.state.folder), PART_MARK: part.name},
                "state": str(self.state.folder),
                "works_in": str(part.works_in) if part.works_in else None,
            },
        )
        (self.state.parts / f"{part.name}.conf").write_text(part_section(self.state, part, description))
        self._configure()
        self._call("reloadConfig")
        self._call("addProcessGroup", part.name, ignore=Faults.ALREADY_ADDED)
        self.start(part.name)

    def environment(self, name: str) -> dict[str, str]:
        """What a part that is known was given."""
        return dict((read_json(self._description(name)) or {}).get("environment", {}))

    def _description(self, name: str) -> Path:
        return self.state.parts / f"{name}.json"

    def start(self, name: str) -> None:
        """Start a part that is known."""
        self._call("startProcess", name, False, ignore=Faults.ALREADY_STARTED)  # noqa: FBT003

    def stop(self, name: str) -> None:
        """Ask a part to stop, without waiting for it; it does not come back by itself."""
        self._call("stopProcess", name, False, ignore=Faults.NOT_RUNNING)  # noqa: FBT003

    def status(self) -> dict[str, PartStatus]:
        """All parts by name. Asking also wakes the supervisor."""
        return {info["name"]: status_of(info) for info in self._call("getAllProcessInfo")}

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
