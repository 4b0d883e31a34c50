"""`python -m local.launcher PART.json`: starts a part. Every part is started through this program.

First it ends processes of an earlier start of the same part. (If a parent was killed with -9, its children may still
use its port or its files.) Then it becomes the part itself, so the supervisor sees the same process id all the time.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main(path: Path) -> None:
    """Become the part that the file describes: `{"name", "argv", "environment", "state", "works_in"}`."""
    part: dict[str, Any] = json.loads(path.read_text())
    started_before = path.with_suffix(".pid")
    # At the first start there can be no such processes, because `flixtrail demo` has checked. So the scan is skipped.
    if started_before.exists():
        end_leftovers(part)
    started_before.write_text(str(os.getpid()))
    os.execvpe(part["argv"][0], part["argv"], part["environment"])  # noqa: S606 (our own file)


def end_leftovers(part: dict[str, Any]) -> None:
    """End every process of an earlier start of this part, and remove PostgreSQL's file with its process id."""
    from local import leftover_processes

    works_in = Path(part["works_in"]) if part["works_in"] else None
    ended = leftover_processes.end(leftover_processes.processes(Path(part["state"]), part["name"], works_in=works_in))
    if ended:
        sys.stderr.write(f"launcher: ended {ended} processes of an earlier {part['name']}\n")
    if works_in:
        # Its process is gone now. The number in the file may belong to another process, or to a zombie.
        (works_in / "postmaster.pid").unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
