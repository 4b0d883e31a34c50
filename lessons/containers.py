"""Live reload and caching in containers: what you see at once, what is kept, what is built again.

An image consists of **layers**, one for each line of its Dockerfile that changes files. A build reuses a layer of an
earlier build if that line, all lines above it, and the files that they copy are the same.

| what | what it saves |
| --- | --- |
| a **bind mount** of the sources | the build: the container sees the files of this machine |
| copying the requirements before the sources | the layer with the packages, if only a source changes |
| a **volume** or a **cache mount** for packages | the network: it outlives containers and images |

In a Node.js project, `npm config set prefer-offline true` lets npm use a package from its cache without asking the
registry (it replaces `cache-min`). npm's cache is the folder `~/.npm/_cacache`. A cache mount keeps it between builds:

```
RUN --mount=type=cache,target=/var/cache/npm npm ci --prefer-offline --cache /var/cache/npm
```

Flixtrail's `Dockerfile` does the same for pip's wheels. You will see an edit through a mount, in a running process and
in an image, which layers a second build makes, and what a second container finds. The lesson needs a Docker engine and
the image `python:3.13-slim`, and no network.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lessons.harness.errors import Skipped
from lessons.harness.stage import Stage
from lessons.programs import containers_sources

TRY = """
1. `.venv/bin/flixtrail lesson containers --set copied_first=sources`: how many layers differ now, and which?
2. Mount only `title.py`, and save it in your editor. If your editor saves to a new file (`ls -i`), the container keeps
   the old one.
3. Add a line to requirements.txt. What does Flixtrail's `Dockerfile` download then? What would it download without its
   cache?
"""
BREAKS = ("copied_first", "sources")
WHY = {"copied_first": "The packages' line comes after the changed sources, so its layer is built again, too."}
IMAGE, NAME, VOLUME = "python:3.13-slim", "flixtrail-lesson-containers", "flixtrail-lesson-packages"
INSTALL = "python -m pip --quiet --disable-pip-version-check install --no-index --find-links"
PACKAGES = f"COPY wheels wheels\nCOPY requirements.txt ./\nRUN {INSTALL} wheels -r requirements.txt\n"
SOURCES = "COPY *.py ./\n"


def docker(*arguments: str, check: bool = True) -> str:
    """Return what the engine prints. Raises CalledProcessError."""
    return subprocess.run(("docker", *arguments), check=check, capture_output=True, text=True).stdout.strip()


def layers(folder: Path, tag: str) -> Any:
    """Build an image, and return its layers."""
    docker("build", "--quiet", "--network", "none", "--tag", tag, str(folder))
    return json.loads(docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", tag))


def play(stage: Stage, *, copied_first: str = "requirements") -> None:
    try:
        docker("info")
    except (OSError, subprocess.CalledProcessError):
        raise Skipped("no Docker engine") from None
    try:
        with TemporaryDirectory() as folder:
            show(stage, Path(folder), copied_first)
    finally:
        for left in (["rm", NAME], ["rmi", f"{NAME}:1", f"{NAME}:2"], ["volume", "rm", VOLUME]):
            docker(*left, "--force", check=False)


def show(stage: Stage, folder: Path, copied_first: str) -> None:
    containers_sources.put(folder)
    lines = SOURCES + PACKAGES if copied_first == "sources" else PACKAGES + SOURCES
    (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nWORKDIR /app\n{lines}")
    first = layers(folder, f"{NAME}:1")
    stage.say(
        "A container mounts the sources. Two services run in it, one of them with live reload. Then title.py is edited."
    )
    mounts = ("--volume", f"{folder}:/app:ro", "--volume", f"{VOLUME}:/packages", "--workdir", "/app")
    both = "python serve.py /tmp/plain & python serve.py /tmp/watched --reload"
    docker("run", "--detach", "--name", NAME, *mounts, IMAGE, "sh", "-c", both)
    word = ("grep", "-ohE", "old|new", "title.py")
    look = ("exec", NAME, *word, "/tmp/plain", "/tmp/watched")  # noqa: S108 (in the container)
    stage.eventually(lambda: docker(*look, check=False).split(), ["old"] * 3)
    (folder / "title.py").write_text("TITLE = 'new'\n")
    stage.moves("edit", "editor", "folder", "container")
    file, plain, watched = stage.eventually(lambda: docker(*look, check=False).split(), ["new", "old", "new"])
    copied = docker("run", "--rm", f"{NAME}:1", *word)
    stage.prove("Through the mount, title.py is new.", file, "new")
    stage.prove("In the image, title.py is old: it was copied before the edit.", copied, "old")
    stage.really(
        "A mounted file changes a running program.",
        "The service without live reload still has the old title.",
        plain,
        "old",
    )
    stage.prove("The service with live reload has restarted, and has the new title.", watched, "new")

    stage.say("The image is built again, with the edited file.")
    pairs = zip(first, layers(folder, f"{NAME}:2"), strict=True)
    changed = sum(old != new for old, new in pairs)
    stage.prove("One layer is new, that of the sources. The layer of the packages was reused.", changed, 1)

    stage.say(
        "The container puts a package into a volume, and is removed. The next one has the volume, and no network."
    )
    docker("exec", NAME, "cp", "--recursive", "wheels/.", "/packages")
    docker("rm", "--force", NAME)
    script = f"{INSTALL} /packages greeting && python -c 'import greeting; print(greeting.HELLO)'"
    offline = ("run", "--rm", "--network", "none")
    said = docker(*offline, "--volume", f"{VOLUME}:/packages", IMAGE, "sh", "-c", script)
    stage.moves("package", "first container", "volume", "next container")
    stage.prove("The next container installed the package from the volume.", said, "hello")
    files = docker(*offline, IMAGE, "sh", "-c", "ls /app /packages 2>/dev/null | wc -l")
    stage.really("Mounted files are in the image.", "Without the mounts, the image has 0 of these files.", files, "0")
