"""Live reload and caching in containers: what is seen at once, what is kept, what is made anew.

An image is a pile of **layers**, one for each line of its Dockerfile that changes files. A build takes over a layer of
an earlier one as long as that line, all lines above it and the files that they copy are the same.

| what | what it spares |
| --- | --- |
| a **bind mount** of the sources | the build: the container sees this machine's files |
| requirements copied before the sources | the packages' layer, when only a source changes |
| a **volume** (or a cache mount) for packages | the network: it outlives containers and images |

You will see an edit through a mount, in a process that runs and in an image, which layers a second build makes, and
what a second container finds. It takes a Docker engine and the image `python:3.13-slim`, and no network.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lessons.errors import Skipped
from lessons.hands import containers_sources
from lessons.stage import Stage

TRY = """
1. `flixtrail lesson containers --set copied_first=sources`: how many layers differ now, and which?
2. Mount `title.py` alone and save it in your editor. One that saves a new file (`ls -i`) leaves the old one mounted.
3. Add a line to requirements.txt. What does Flixtrail's `Dockerfile` fetch then, and what would it without its cache?
"""
#: A setting, and a value of it with which something cannot be proved.
BREAKS = ("copied_first", "sources")
IMAGE, NAME, VOLUME = "python:3.13-slim", "flixtrail-lesson-containers", "flixtrail-lesson-packages"
INSTALL = "python -m pip --quiet --disable-pip-version-check install --no-index --find-links"
PACKAGES = f"COPY wheels wheels\nCOPY requirements.txt ./\nRUN {INSTALL} wheels -r requirements.txt\n"
SOURCES = "COPY *.py ./\n"


def docker(*arguments: str, check: bool = True) -> str:
    """What the engine answers. Raises CalledProcessError."""
    return subprocess.run(("docker", *arguments), check=check, capture_output=True, text=True).stdout.strip()


def layers(folder: Path, tag: str) -> Any:
    """Build an image, and say what it is a pile of."""
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
    stage.say("A container mounts the sources. Two services run in it, one of them is watched. Then comes an edit.")
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
    stage.prove("title.py through the mount, and copied into an image", (file, copied), ("new", "old"))
    stage.really("A mounted file changes the program that runs.", "that one has loaded", plain, "old")
    stage.prove("the watched one was started anew, and has loaded", watched, "new")

    stage.say("The image is built again, with the edit.")
    pairs = zip(first, layers(folder, f"{NAME}:2"), strict=True)
    stage.prove("layers that differ: the sources, not the packages", sum(old != new for old, new in pairs), 1)

    stage.say("The container puts a package into a volume, and goes. The next one has the volume, and no network.")
    docker("exec", NAME, "cp", "--recursive", "wheels/.", "/packages")
    docker("rm", "--force", NAME)
    script = f"{INSTALL} /packages greeting && python -c 'import greeting; print(greeting.HELLO)'"
    offline = ("run", "--rm", "--network", "none")
    said = docker(*offline, "--volume", f"{VOLUME}:/packages", IMAGE, "sh", "-c", script)
    stage.moves("package", "first container", "volume", "next container")
    stage.prove("the next container installs the package, which says", said, "hello")
    files = docker(*offline, IMAGE, "sh", "-c", "ls /app /packages 2>/dev/null | wc -l")
    stage.really("What is mounted needs no COPY.", "without mounts, the image has of these files", files, "0")
