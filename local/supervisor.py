"""The supervisor of all parts: `supervisord`, controlled over its Unix socket (docs/decisions/0003-supervisor.md).

It restarts a part that died, writes and rotates logs, and stops parts on request. `local.stack` decides
when to start and stop which part.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

from supervisor.xmlrpc import Faults, SupervisorTransport

from local.environment import PYTHON_VARIABLES, compile_sources
from local.errors import DemoError, SupervisorUnreachable
from local.leftover_processes import PART_MARK, STATE_MARK
from local.part import Part, PartStatus, part_section, status_of, supervisor_section
from local.state import State, read_json, write_json

#: supervisord checks for dead parts once a second, and after every request. With a request this often, it restarts a
#: dead part within a tenth of a second (docs/decisions/0003-supervisor.md).
POLL_INTERVAL_S = 0.1


class Supervisor:
    """The running supervisor of one state folder. Every method raises SupervisorUnreachable if it does not answer."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.socket = state.socket_folder("supervisor") / "supervisor.sock"
        self._transport = SupervisorTransport(None, None, f"unix://{self.socket}")
        self._rpc: Any = ServerProxy("http://127.0.0.1", transport=self._transport).supervisor

    def launch(self) -> subprocess.Popen[bytes]:
        """Start supervisord without parts. If this process is killed, it stops everything by itself."""
        self._configure()
        compile_sources()
        argv = [
            sys.executable,
            "-m",
            "supervisor.supervisord",
            "-c",
            str(self.state.safe_path / "run" / "supervisord.conf"),
        ]
        if setpriv := shutil.which("setpriv"):
            argv = [setpriv, "--pdeathsig", "TERM", *argv]
        with self.state.open_log("supervisord") as log:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal reaches only this process, which stops the parts in order.
                start_new_session=True,
                umask=0o077,  # logs say who watched what, so only their owner may read them
                cwd=self.state.run,
                env={**os.environ, **PYTHON_VARIABLES, STATE_MARK: str(self.state.folder)},
            )

    def _configure(self) -> None:
        """Write supervisord's file (its own settings and every known part), and the script that starts a part.

        The path of our Python may contain any character. Only a script can express that: in supervisord's file, spaces,
        `%`, `;` and `#` have a special meaning.
        """
        launch = f'exec {shlex.quote(sys.executable)} -m local.launcher "$1"\n'
        (self.state.run / "launch").write_bytes(os.fsencode(launch))
        parts = [path.read_text() for path in sorted(self.state.parts.glob("*.conf"))]
        (self.state.run / "supervisord.conf").write_text("".join([supervisor_section(self.state, self.socket), *parts]))

    def add(self, part: Part) -> None:
        """Add a part, and start it."""
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
        (self.state.parts / f"{part.name}.conf").write_text(part_section(self.state, part))
        self._configure()
        self._call("reloadConfig")
        self._call("addProcessGroup", part.name, ignore=Faults.ALREADY_ADDED)
        self.start(part.name)

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment of a known part."""
        return dict((read_json(self._description(name)) or {}).get("environment", {}))

    def _description(self, name: str) -> Path:
        return self.state.parts / f"{name}.json"

    def start(self, name: str) -> None:
        """Start a known part."""
        self._call("startProcess", name, False, ignore=Faults.ALREADY_STARTED)  # noqa: FBT003

    def stop(self, name: str) -> None:
        """Ask a part to stop, without waiting for it. It does not restart by itself."""
        self._call("stopProcess", name, False, ignore=Faults.NOT_RUNNING)  # noqa: FBT003

    def status(self) -> dict[str, PartStatus]:
        """Return all parts by name. The request also makes the supervisor check for dead parts."""
        return {info["name"]: status_of(info) for info in self._call("getAllProcessInfo")}

    def shutdown(self) -> None:
        """Ask the supervisor to end, and with it everything that still runs."""
        self._call("shutdown")

    def _call(self, method: str, *arguments: Any, ignore: int | None = None) -> Any:
        try:
            return getattr(self._rpc, method)(*arguments)
        except Fault as fault:
            if fault.faultCode == ignore:
                return None
            raise DemoError(f"supervisor: {method}{arguments}: {fault.faultString}") from None
        except (OSError, HTTPException) as error:
            raise SupervisorUnreachable(f"the supervisor does not answer: {error}") from None
        finally:
            # A connection that failed once keeps failing, and a new one to a Unix socket costs nothing.
            self._transport.close()
