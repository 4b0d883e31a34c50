"""Writes files completely or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path


def write_whole(path: Path, content: bytes, *, make_folder: bool = True) -> None:
    """Write a file atomically: another process sees the old file or the new one, never half of it. Raises OSError.

    Only its owner may read the file (mode 0600). `make_folder`: make missing folders first.
    """
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        unfinished = Path(file.name)
        try:
            file.write(content)
            file.close()  # writes the buffer: on a full disk this fails
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
