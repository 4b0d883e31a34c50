"""Demos for the tests. Each has its own folder, ports and nodes; none touches what runs on this machine already."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

from local import rabbitmq_programs
from local.state import State
from streaming_app.videos.samples import samples
from tests.demo import HARD_NAME, Demo

__all__ = ["Demo"]

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("flixtrail", deadline=None)
hypothesis.settings.load_profile("flixtrail")

StartDemo = Callable[..., Demo]


def missing(what: str) -> NoReturn:
    """Skip a test that needs something this machine lacks; where REQUIRE_ALL=1 (CI) that is a failure."""
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail(f"REQUIRE_ALL=1, and there is no {what}")
    pytest.skip(f"there is no {what}")


def need_rabbitmq() -> None:
    if not rabbitmq_programs.is_installed():
        missing("rabbitmq-server on this machine")


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample clips, made once for all processes of a run: for each demo anew they would take five seconds."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "clips"
    folder.mkdir(exist_ok=True)
    return samples(folder)


@pytest.fixture
def start_demo(tmp_path: Path, clips: Path) -> Iterator[StartDemo]:
    """Starts demos, by default in learner mode; `start_demo(WORKERS="2")`. All on the same state folder, unless one is
    named.

    `ready=False` does not wait for the ready line. What still runs in the end is killed: a test of how it stops calls
    `stop()` itself.
    """
    started: list[Demo] = []
    defaults = {"BROKER": "embedded", "WORKERS": "1", "VIDEOS": str(clips)}

    def start(state: Path | None = None, *, ready: bool = True, prefix: tuple[str, ...] = (), **settings: str) -> Demo:
        one = Demo(state or tmp_path / "state", {**defaults, **settings}, prefix)
        started.append(one)
        if ready:
            one.wait_until_ready()
        return one

    yield start
    for one in started:
        one.kill_everything()
        State(one.state).remove_runtime_files()  # its sockets may lie elsewhere in /tmp


@pytest.fixture(scope="session")
def rabbitmq_demo(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> Iterator[Demo]:
    """One demo on a private RabbitMQ node, for all tests. If a test breaks something in it, it calls `settled()`
    afterwards.
    """
    need_rabbitmq()
    yield from shared(tmp_path_factory, "rabbitmq", clips)


@pytest.fixture(scope="session")
def embedded_demo(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> Iterator[Demo]:
    """One demo in learner mode, for all tests."""
    yield from shared(tmp_path_factory, "embedded", clips)


def shared(folders: pytest.TempPathFactory, broker: str, clips: Path) -> Iterator[Demo]:
    state = folders.mktemp(broker) / HARD_NAME
    # Where it would make them itself.
    shutil.copytree(clips, State(state).cache / clips.relative_to(clips.parents[1]))
    one = Demo(state, {"BROKER": broker, "WORKERS": "2"})
    try:
        one.wait_until_ready()
        yield one
    finally:
        one.stop()
