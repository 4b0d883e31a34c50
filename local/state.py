"""The state folder (`var/`): the demo's data, logs and secrets, and what the command line needs to find the demo.

It contains:

    demo.lock          locked (flock) by the running demo
    state.json         addresses and keys of the running demo; missing while it does not run
    secrets.json       passwords and keys, made once
    revoked-tokens     ids of revoked tokens, one per line
    ports.json         ports of the private node and the history API, chosen once
    run/               the supervisor's files: made again at every start
    log/NAME.log       one log per part
    postgres/ rabbitmq/ cache/ outbox/
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from local.errors import AlreadyRunning, DemoError, NotRunning
from service import file_lock, metrics_files
from service.atomic_file import write_whole

#: Lines of a part's log that are shown if the part fails.
LOG_TAIL = 15
#: The path of a Unix socket may have 107 bytes (Linux; 103 on macOS). `/run/supervisor/supervisor.sock.` and a process
#: id take 40 of them.
MAX_SAFE_PATH = 60
#: Characters that are safe in every URL, configuration file and program that gets the folder's name.
SAFE_PATH = re.compile(r"[A-Za-z0-9/._-]+")
#: Where a short name of the state folder may be made.
SHORT_PLACES = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 (whose it is, is checked before its use)
#: Free bytes that a new demo needs at its start: 40 MB of database, 16 MB of its journal, sample clips, RabbitMQ's
#: files. RabbitMQ itself accepts no message while less than 50 MB are free.
NEEDED_BYTES = 200_000_000


class State:
    """One state folder; `folder` is absolute. Raises DemoError if the name cannot be used."""

    def __init__(self, folder: Path) -> None:
        try:
            self.folder = folder.expanduser().resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise DemoError(f"STATE: {str(folder)!r} names no folder: {error}") from None
        self.run = self.folder / "run"
        self.logs = self.folder / "log"
        self.parts = self.run / "parts"
        self.cache = self.folder / "cache"
        self.outbox = self.folder / "outbox"
        self.revoked_tokens = self.folder / "revoked-tokens"

    def make(self) -> None:
        """Make the folder, and check that it is writable. Raises DemoError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()
            owner, free = self.folder.stat().st_uid, shutil.disk_usage(self.folder).free
        except OSError as error:
            raise self.write_error(error) from None
        if owner != os.geteuid():
            raise DemoError(f"STATE: {self.folder} belongs to another user; choose another folder with STATE=")
        if free < NEEDED_BYTES:
            raise DemoError(
                f"STATE: {free // 1_000_000} MB are free on the disk of {self.folder}, and the demo needs "
                f"{NEEDED_BYTES // 1_000_000} MB. Choose a folder on another disk with STATE="
            )

    def write_error(self, error: OSError) -> DemoError:
        """Describe a file of the state folder that cannot be made, read or written."""
        reason = "the disk is full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else error.strerror
        where = error.filename if isinstance(error.filename, str) else str(self.folder)
        if tempfile.gettempprefix() in Path(where).name:
            where = str(self.folder)  # the user does not know the temporary file
        return DemoError(f"STATE: cannot write to {where}: {reason}. Choose another folder with STATE=")

    def make_subfolders(self) -> None:
        """Make the sub-folders."""
        try:
            # PostgreSQL does not run as root, and must pass through `run/` to its own socket.
            for folder, mode in ((self.run, 0o711), (self.logs, 0o700), (self.parts, 0o700), (self.cache, 0o755)):
                folder.mkdir(mode=mode, exist_ok=True)
            self.logs.chmod(0o700)  # it may exist with another mode
            for log in self.logs.iterdir():
                log.chmod(0o600)
        except OSError as error:
            raise self.write_error(error) from None

    def log(self, part: str) -> Path:
        """Return the file for a part's output."""
        return self.logs / f"{part}.log"

    def open_log(self, part: str) -> BinaryIO:
        """Open a part's log for appending. Only its owner may read it, because it shows who watched what."""
        return os.fdopen(os.open(self.log(part), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")

    def end_of_log(self, part: str, what_happened: str) -> str:
        """Describe a failed part for the user: the last lines of its log, and where the rest is."""
        log = self.log(part)
        lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL:] if log.exists() else []
        return "\n".join([f"{part} {what_happened}. The end of {log}:", *(f"  | {line}" for line in lines)])

    # -- a path that every program accepts -------------------------------------------------------------

    @cached_property
    def safe_path(self) -> Path:
        """The state folder under a short name of plain characters: its own name, or a symbolic link to it.

        The programs of the demo read names differently. RabbitMQ reads its configuration as latin-1. Its scripts and
        supervisord split names at spaces or `%`. A socket's path has at most 107 bytes, and a path of PostgreSQL 1,024.
        So all of them get this name.
        """
        if len(str(self.folder)) <= MAX_SAFE_PATH and SAFE_PATH.fullmatch(str(self.folder)):
            return self.folder
        folder = self._short_folder()
        link = folder / "state"
        if not link.is_symlink() or link.readlink() != self.folder:
            link.unlink(missing_ok=True)
            with suppress(FileExistsError):  # another command of this demo was faster
                link.symlink_to(self.folder)
        # Locked as long as this process lives, because systemd-tmpfiles deletes old folders unless they are locked.
        file_lock.lock(folder, file_lock.FOLDER, shared=True)
        return link

    def _short_folder(self) -> Path:
        """Return the folder for the link. Other users cannot write to it, but PostgreSQL may pass through."""
        for place in SHORT_PLACES:
            folder = Path(place, self._short_name)
            try:
                folder.mkdir(mode=0o711)
                folder.chmod(0o711)  # independent of the umask
            except FileExistsError:
                found = folder.lstat()
                if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                    continue  # another user's
            except OSError:
                continue  # not available on this machine
            return folder
        raise DemoError(
            f"STATE: RabbitMQ or a socket cannot use the name {self.folder}, and a short one can be made in none of "
            f"{', '.join(SHORT_PLACES)}. Choose a STATE with a short name of plain letters."
        )

    @property
    def _short_name(self) -> str:
        name = hashlib.sha256(os.fsencode(self.folder) + b"\0%d" % os.geteuid()).hexdigest()[:16]
        return f"flixtrail-{name}"

    def socket_folder(self, purpose: str, owner: int | None = None) -> Path:
        """Make a folder for Unix sockets below `run/`, of mode 0700 and owned by `owner`."""
        folder = self.safe_path / "run" / purpose
        owner = os.geteuid() if owner is None else owner
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid not in {owner, os.geteuid()}:
            raise DemoError(f"{folder} belongs to another user; remove it or choose another STATE")
        os.chown(folder, owner, -1)
        folder.chmod(0o700)
        return folder

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder for one demo. Raises AlreadyRunning. The kernel releases the lock when the process ends,
        however it ends.
        """
        path = self.folder / "demo.lock"
        try:
            while (descriptor := file_lock.try_lock(path)) is None:
                with suppress(FileNotFoundError):  # that demo has just ended
                    raise AlreadyRunning(self._already_running(path.read_text().strip()))
        except OSError as error:
            raise self.write_error(error) from None
        try:
            try:
                os.ftruncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
            except OSError as error:
                raise self.write_error(error) from None
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)

    def _already_running(self, pid: str) -> str:
        where = ""
        with suppress(DemoError):  # the demo has just begun, or the file is damaged
            where = f" at {self.read()['web']['url']}"
        return f"A demo is running on {self.folder} already{where} (process {pid})."

    # -- what the command line needs to know ----------------------------------------------------------

    def write(self, document: dict[str, Any]) -> None:
        """Write the running demo's addresses and keys."""
        write_json(self.folder / "state.json", document)

    def read(self) -> dict[str, Any]:
        """Read the running demo's addresses and keys. Raises NotRunning, or DemoError if the file is damaged."""
        path = self.folder / "state.json"
        found = read_json(path)
        if found is None:
            raise NotRunning(f"No demo is running on {self.folder}. Start one with `make demo`, or name its STATE.")
        if not found.keys() >= {"web", "broker", "secret_key"}:
            raise _damaged(path, "it names no demo")
        return found

    def remove_runtime_files(self) -> None:
        """Remove what only a running demo has."""
        (self.folder / "state.json").unlink(missing_ok=True)
        for folder in (self.run, *(Path(place, self._short_name) for place in SHORT_PLACES)):
            shutil.rmtree(folder, ignore_errors=True)
        self.__dict__.pop("safe_path", None)  # the link is gone, so it must be made again
        metrics_files.remove_abandoned()

    def revoke(self, token_id: str) -> None:
        """Add a token to the list of revoked tokens, which the streaming app reads."""
        with self.revoked_tokens.open("a") as file:
            file.write(f"{token_id}\n")

    def secret(self, name: str) -> str:
        """Return a password or key. It is made once and then stays the same."""
        path = self.folder / "secrets.json"
        known = read_json(path) or {}
        if name not in known:
            known[name] = secrets.token_hex(24)
            write_json(path, known)
        return str(known[name])


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file atomically, readable by its owner only."""
    write_whole(path, json.dumps(document, indent=2).encode(), make_folder=False)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read the object in a JSON file, or None if there is no file. Raises DemoError if it cannot be read."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DemoError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:  # invalid JSON, or invalid UTF-8
        raise _damaged(path, str(error)) from None
    if not isinstance(found, dict):
        raise _damaged(path, "no object is in it")
    return found


def _damaged(path: Path, reason: str) -> DemoError:
    return DemoError(f"{path} is damaged ({reason}). Remove it, and start the demo anew with `make demo`")
