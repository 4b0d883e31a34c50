"""The state folder (`var/`): where the demo keeps data, logs, secrets, and what the command line needs to find it.

demo.lock          held (flock) by the running demo
state.json         addresses and keys of the running demo; gone when it is not running
secrets.json       passwords and keys, made once
ports.json         ports of the private node and the history API, chosen once
run/               the supervisor's files: remade on every start
log/NAME.log       one log a part
postgres/ rabbitmq/ cache/ outbox/
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flixtrail.local.errors import AlreadyRunning, DemoError, NotRunning
from view_events import metrics_files

#: Lines of a part's log that are shown when it fails.
LOG_TAIL = 15
#: What has Unix sockets: the purposes of `State.socket_folder`.
SOCKETS = ("supervisor", "postgres")
#: A Unix socket's whole path may take 107 bytes (Linux; 103 on macOS), of which `/.s.PGSQL.5432.lock` takes 19.
LONGEST_SOCKET_FOLDER = 80
#: Characters that survive in every URL and configuration file that names the socket.
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")


class State:
    """One state folder; `folder` is absolute."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().resolve()
        self.run = self.folder / "run"
        self.logs = self.folder / "log"
        self.parts = self.run / "parts"
        self.cache = self.folder / "cache"
        self.outbox = self.folder / "outbox"

    def make(self) -> None:
        """Make the folder itself. Raises DemoError when that is not possible."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DemoError(f"STATE: cannot write to {self.folder}: {error.strerror}") from None
        if self.folder.stat().st_uid != os.geteuid():
            raise DemoError(f"STATE: {self.folder} belongs to another user; choose another folder with STATE=")

    def prepare(self) -> None:
        """Make what is in it."""
        try:
            # PostgreSQL, which does not run as root, passes through `run/` to its own socket.
            for folder, mode in ((self.run, 0o711), (self.logs, 0o755), (self.parts, 0o700), (self.cache, 0o755)):
                folder.mkdir(mode=mode, exist_ok=True)
        except OSError as error:
            raise DemoError(f"STATE: cannot write to {self.folder}: {error.strerror}") from None

    def log(self, part: str) -> Path:
        """Where a part's output goes."""
        return self.logs / f"{part}.log"

    def end_of_log(self, part: str, what_happened: str) -> str:
        """What a person has to see when a part failed: its last lines, and where the others are."""
        log = self.log(part)
        lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL:] if log.exists() else []
        return "\n".join([f"{part} {what_happened}. The end of {log}:", *(f"  | {line}" for line in lines)])

    def socket_folder(self, purpose: str, owner: int | None = None) -> Path:
        """A folder of mode 0700 for Unix sockets, of `owner`: below `run/` unless the path is too long for that."""
        folder = self.run / purpose
        if len(str(folder).encode()) > LONGEST_SOCKET_FOLDER or not PLAIN_PATH.fullmatch(str(folder)):
            folder = self._short(purpose)
        owner = os.geteuid() if owner is None else owner
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid not in {owner, os.geteuid()}:
            raise DemoError(f"{folder} belongs to somebody else; remove it or choose another STATE")
        os.chown(folder, owner, -1)
        folder.chmod(0o700)
        return folder

    def _short(self, purpose: str) -> Path:
        name = hashlib.sha256(f"{self.folder}\0{os.geteuid()}".encode()).hexdigest()[:16]
        return Path("/tmp") / f"flixtrail-{name}-{purpose}"  # noqa: S108 (whose it is, is checked before its use)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one demo. Raises AlreadyRunning. The lock goes with the process, however that ends."""
        path = self.folder / "demo.lock"
        while True:
            with path.open("a+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.seek(0)
                    raise AlreadyRunning(self._who_runs(file.read().strip())) from None
                # A demo that ended between our open and our lock has removed the file: then this is a lock on nothing.
                if not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
                    continue
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return

    def _who_runs(self, pid: str) -> str:
        where = f" at {self.read()['web']['url']}" if (self.folder / "state.json").exists() else ""
        return (
            f"A demo is running on {self.folder} already{where} (process {pid}).\n"
            "Stop it with Ctrl-C in its terminal, or start another one: STATE=./var2 PORT=8100 make demo"
        )

    # -- what the command line needs to know ----------------------------------------------------------

    def write(self, document: dict[str, Any]) -> None:
        """Publish the running demo's addresses and keys."""
        write_json(self.folder / "state.json", document)

    def read(self) -> dict[str, Any]:
        """The running demo's addresses and keys. Raises NotRunning."""
        found = read_json(self.folder / "state.json")
        if found is None:
            raise NotRunning(f"No demo is running on {self.folder}. Start one with `make demo`, or name its STATE.")
        return found

    def forget(self) -> None:
        """Take away what only a running demo has."""
        (self.folder / "state.json").unlink(missing_ok=True)
        for folder in (self.run, *map(self._short, SOCKETS)):
            shutil.rmtree(folder, ignore_errors=True)
        metrics_files.sweep()

    def secret(self, name: str) -> str:
        """A password or key that is made once and then stays the same."""
        path = self.folder / "secrets.json"
        known = read_json(path) or {}
        if name not in known:
            known[name] = secrets.token_hex(24)
            write_json(path, known)
        return str(known[name])


def write_json(path: Path, document: Any) -> None:
    """Write a file that is only ever seen whole, by its owner only."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w") as file:
        json.dump(document, file, indent=2)
    Path(name).replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file, None when there is no file."""
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
