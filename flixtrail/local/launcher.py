"""`python -m flixtrail.local.launcher PART.json`: every part is started through this.

First it ends what an earlier start of the same part left behind (children of a parent that was killed with -9 may still
hold its port or its files), then it becomes the part itself: the supervisor sees one process id throughout.
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
    # Before its first start nothing can be left over, since `flixtrail demo` has looked. That saves the scan.
    if started_before.exists():
        end_leftovers(part)
    started_before.write_text(str(os.getpid()))
    os.execvpe(part["argv"][0], part["argv"], part["environment"])  # noqa: S606 (our own file)


def end_leftovers(part: dict[str, Any]) -> None:
    """End every process of an earlier start of this part, and take away the file in which PostgreSQL remembers one."""
    from flixtrail.local import leftovers

    works_in = Path(part["works_in"]) if part["works_in"] else None
    ended = leftovers.end(leftovers.processes(Path(part["state"]), part["name"], works_in=works_in))
    if ended:
        sys.stderr.write(f"launcher: ended {ended} processes of an earlier {part['name']}\n")
    if works_in:
        # It names a process that is surely gone now; its number may belong to somebody else, or to a zombie.
        (works_in / "postmaster.pid").unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
