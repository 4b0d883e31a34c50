"""Revoked tokens, by their ids. They come from the setting itself, or from a file that may change meanwhile."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from time import monotonic

import structlog

log = structlog.get_logger(__name__)

#: Hexadecimal digits of a token's id.
ID_DIGITS = 12
ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}")
#: Seconds after which the file is checked for changes again.
CHECK_EVERY_S = 1.0


def id_of_old_token(token: str) -> str:
    """Make an id for a token that contains none. Tokens of earlier versions contain none."""
    return sha256(token.encode()).hexdigest()[:ID_DIGITS]


def ids_in(text: str) -> frozenset[str]:
    """Return the ids in a setting or a file. `#` begins a comment. Anything that is not an id is ignored."""
    lines = (line.partition("#")[0] for line in text.splitlines())
    return frozenset(word for line in lines for word in line.replace(",", " ").split() if ID.fullmatch(word))


class Revoked:
    """The revoked tokens. `setting`: ids, or the path of a file with one id per line. The file need not exist yet."""

    def __init__(self, setting: str = "") -> None:
        self._path = Path(setting) if "/" in setting else None
        self._ids = frozenset() if self._path else ids_in(setting)
        self._check_at = 0.0
        self._stamp: object = None

    def __contains__(self, token_id: str) -> bool:
        if self._path and monotonic() >= self._check_at:
            self._check_at = monotonic() + CHECK_EVERY_S
            self._check(self._path)
        return token_id in self._ids

    def _check(self, path: Path) -> None:
        try:
            status = path.stat()
            stamp = status.st_mtime_ns, status.st_size, status.st_ino
            if stamp != self._stamp:
                self._ids = ids_in(path.read_text(errors="replace"))
                self._stamp = stamp
        except FileNotFoundError:
            self._ids, self._stamp = frozenset(), None
        except OSError as error:  # keep the ids that were read before
            log.warning("the list of revoked tokens cannot be read", path=str(path), error=str(error))
