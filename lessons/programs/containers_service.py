"""A service in a container: `python serve.py FILE [--reload]`. It writes the title that it has loaded into FILE.

With `--reload` it restarts the service whenever `title.py` changes, as `watchfiles` does for Flixtrail.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from time import sleep

LIVES_S = 600
LOOK_EVERY_S = 0.05
SOURCE = Path("title.py")


def serve() -> None:
    Path(sys.argv[1]).write_text(importlib.import_module("title").TITLE)
    sleep(LIVES_S)


def watch() -> None:
    while True:
        loaded = SOURCE.stat().st_mtime_ns
        with subprocess.Popen([sys.executable, *sys.argv[:2]]) as service:
            while SOURCE.stat().st_mtime_ns == loaded:
                sleep(LOOK_EVERY_S)
            service.kill()


if __name__ == "__main__":
    watch() if "--reload" in sys.argv else serve()
