"""The faults. Each is a context manager that causes a fault and heals it at its end.

`FAULTS` names them; `schedule` says which comes when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Protocol

import psutil

from local.processes import process_tree, web_processes
from local.supervisor import Supervisor
from proof.chaos import victims
from proof.chaos.broker import TOO_LITTLE_MEMORY, USUAL_MEMORY, BrokerInContainer, PrivateBroker
from proof.chaos.errors import NotHealed, PartMissing
from proof.chaos.proxy import BOTH, ProxyProcess
from proof.chaos.schedule import Planned
from service.waiting import wait_until

#: Seconds to wait for a part that is just being restarted.
PART_TIMEOUT_S = 10
#: Seconds to wait for healing. A killed node needs up to ten seconds, and more while other parts start.
HEAL_TIMEOUT_S = 60
#: Seconds for which a worker is frozen before it is killed. Meanwhile the broker delivers messages to it that it cannot
#: acknowledge.
UNACKED_S = 1.0
#: The largest file that a web process may write while its disk is full. The process can live with that: the files of
#: its metrics have exactly this size. SQLite's log outgrows it within a few commits.
FILE_BYTES = 64 * 1024


class Views(Protocol):
    """What a fault needs of the client. `load.Load` is the real one."""

    def poison(self, n: int) -> None: ...
    def killers(self, n: int, kind: str) -> None: ...
    def duplicates(self, on: bool) -> None: ...  # noqa: FBT001 (a switch)
    def clock_skew(self, seconds: float) -> None: ...
    def erase_one(self, erase: Callable[[str], None]) -> None: ...


class Page(Protocol):
    """What a fault needs of the page in a browser. `page.BrowserViewer` is the real one."""

    file: Path  #: the video that it watches

    def set_clock(self, ahead_s: float) -> None: ...


@dataclass(frozen=True)
class Scene:
    """Everything that a fault may touch. `erase` erases a viewer, as an operator does."""

    supervisor: Callable[[], Supervisor]  #: returns a new one for each call, because it is for one thread
    broker: PrivateBroker | BrokerInContainer | None  #: None in learner mode
    proxy: ProxyProcess
    views: Views
    erase: Callable[[str], None]
    page: Page | None = None


Fault = Callable[..., AbstractContextManager[None]]
FAULTS: dict[str, Fault] = {}
_WORDS: dict[str, str] = {}


def fault(name: str, words: str) -> Callable[[Callable[..., Iterator[None]]], Fault]:
    """Register a fault under its name. `words` describe it, with its parameters in braces."""

    def known(act: Callable[..., Iterator[None]]) -> Fault:
        FAULTS[name] = contextmanager(act)
        _WORDS[name] = words
        return FAULTS[name]

    return known


def describe(planned: Planned) -> str:
    """Return a line for people."""
    values = {name: " and ".join(v) if isinstance(v, tuple) else v for name, v in planned.parameters.items()}
    return _WORDS[planned.name].format_map(values)


def cause(scene: Scene, planned: Planned) -> AbstractContextManager[None]:
    """Return the fault as a context manager. Entering raises PartMissing, leaving raises NotHealed."""
    return FAULTS[planned.name](scene, **planned.parameters)


# -- parts ----------------------------------------------------------------------------------------------


@fault("kill", "{part}: SIGKILL")
def _kill(scene: Scene, part: str, which: int = 0, with_unacked: bool = False) -> Iterator[None]:  # noqa: FBT001, FBT002
    if part == "broker":
        _node(scene).kill(_broker(scene))
    elif part == "everything":
        found = victims.processes(scene.supervisor(), part, which)
        if scene.broker:
            scene.broker.kill(_broker(scene))
        victims.kill(found)
    else:
        found = _processes(scene, part, which)
        # Freeze the whole worker, so that it gets more messages and acknowledges none.
        frozen = _whole(found) if with_unacked and part.startswith("worker") else []
        victims.freeze(frozen)
        if frozen:
            sleep(UNACKED_S)
        victims.kill(found)
        victims.thaw(frozen)
    yield  # the supervisor restarts it


@fault("freeze", "{part}: SIGSTOP")
def _freeze(scene: Scene, part: str, which: int = 0) -> Iterator[None]:
    broker = _broker(scene) if scene.broker and part in {"broker", "everything"} else None
    found = [] if part == "broker" else _processes(scene, part, which)
    if part == "web-main":
        found = _whole(found)  # freezing only the main process has no effect
    victims.freeze(found)
    if broker:
        _node(scene).freeze(broker)
    try:
        yield
    finally:
        if broker:
            _node(scene).thaw(broker)
        victims.thaw(found)


@fault("down", "{part}: down, and not started again")
def _down(scene: Scene, part: str) -> Iterator[None]:
    name = victims.BROKER if part == "broker" else victims.DATABASE
    # Stop it in the supervisor, so that it does not restart. Then kill it.
    scene.supervisor().stop(name)
    if part == "broker":
        _node(scene).kill(_pid(scene, name) or 0)
    else:
        victims.kill(process_tree(_pid(scene, name)))
    try:
        yield
    finally:
        scene.supervisor().start(name)


@fault("memory-alarm", "broker: out of memory")
def _memory_alarm(scene: Scene) -> Iterator[None]:
    # A node that was just killed does not answer, so try again.
    broker = _node(scene)
    _retry(lambda: broker.set_memory(*TOO_LITTLE_MEMORY), PART_TIMEOUT_S, PartMissing("the broker does not answer"))
    try:
        yield
    finally:
        _retry(lambda: broker.set_memory(*USUAL_MEMORY), HEAL_TIMEOUT_S, NotHealed("the broker's memory alarm stays"))


# -- links ----------------------------------------------------------------------------------------------


@fault("cut", "{link}: cut")
def _cut(scene: Scene, link: str) -> Iterator[None]:
    scene.proxy.cut(link)
    try:
        yield
    finally:
        scene.proxy.heal(link)


@fault("delay", "{link}: {delay_s} s late {directions}")
def _delay(scene: Scene, link: str, directions: Sequence[str], delay_s: float) -> Iterator[None]:
    for direction in directions:
        scene.proxy.delay(link, direction, delay_s)
    try:
        yield
    finally:
        scene.proxy.heal(link)


@fault("swallow", "{link}: black hole {directions}")
def _swallow(scene: Scene, link: str, directions: Sequence[str]) -> Iterator[None]:
    for direction in directions:
        scene.proxy.swallow(link, direction)
    try:
        yield
    finally:
        scene.proxy.heal(link)


# -- the outbox's disk ------------------------------------------------------------------------------------


@fault("outbox-full", "outbox: its disk is full, and the broker is away")
def _outbox_full(scene: Scene) -> Iterator[None]:
    found = _servers(_processes(scene, "web-main", 0))
    usual = _file_limit(found[0])
    _limit_files(found, (FILE_BYTES, usual[1]))
    scene.proxy.cut("web-broker")
    try:
        yield
    finally:
        scene.proxy.heal("web-broker")
        # Also the processes that were started meanwhile and inherited the limit.
        _limit_files([*found, *_servers(victims.processes(scene.supervisor(), "web-main", 0))], usual)


def _file_limit(process: psutil.Process) -> tuple[int, int]:
    try:
        return process.rlimit(psutil.RLIMIT_FSIZE)
    except psutil.NoSuchProcess:
        raise PartMissing("the streaming app is gone again") from None


def _limit_files(found: Sequence[psutil.Process], limits: tuple[int, int]) -> None:
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.rlimit(psutil.RLIMIT_FSIZE, limits)


# -- what comes with the views ------------------------------------------------------------------------------


@fault("clock", "client: its clock is {seconds:+.0f} s off")
def _clock(scene: Scene, seconds: float) -> Iterator[None]:
    scene.views.clock_skew(seconds)
    try:
        yield
    finally:
        scene.views.clock_skew(0)


@fault("duplicates", "client: sends everything up to five times")
def _duplicates(scene: Scene) -> Iterator[None]:
    scene.views.duplicates(True)  # noqa: FBT003 (a switch)
    try:
        yield
    finally:
        scene.views.duplicates(False)  # noqa: FBT003


@fault("poison", "views: {count} poison messages")
def _poison(scene: Scene, count: int) -> Iterator[None]:
    scene.views.poison(count)
    yield


@fault("killers", "views: {count} that kill their worker's {kind}")
def _killers(scene: Scene, count: int, kind: str) -> Iterator[None]:
    scene.views.killers(count, kind)
    yield


@fault("erase", "views: a viewer is erased")
def _erase(scene: Scene) -> Iterator[None]:
    scene.views.erase_one(scene.erase)
    yield


# -- what happens to a page ---------------------------------------------------------------------------------


@fault("page-link", "page: its connection to the streaming app, {how}")
def _page_link(scene: Scene, how: str) -> Iterator[None]:
    if how == "cut":
        scene.proxy.cut("page-web")
    else:
        for direction in BOTH:
            scene.proxy.swallow("page-web", direction)
    try:
        yield
    finally:
        scene.proxy.heal("page-web")


@fault("page-clock", "page: its clock is {seconds:+.0f} s off")
def _page_clock(scene: Scene, seconds: float) -> Iterator[None]:
    page = _page(scene)
    page.set_clock(seconds)
    try:
        yield
    finally:
        page.set_clock(0)


@fault("file-away", "page: the file that it plays is away")
def _file_away(scene: Scene) -> Iterator[None]:
    file = _page(scene).file
    hidden = file.with_name(f".{file.name}")
    file.rename(hidden)
    try:
        yield
    finally:
        hidden.rename(file)


# -- finding the victims --------------------------------------------------------------------------------------


def _node(scene: Scene) -> PrivateBroker | BrokerInContainer:
    assert scene.broker, "a schedule for learner mode has no fault of the broker"
    return scene.broker


def _page(scene: Scene) -> Page:
    assert scene.page, "only a schedule with a browser has faults of its page"
    return scene.page


def _processes(scene: Scene, part: str, which: int) -> list[psutil.Process]:
    found: list[psutil.Process] = []

    def find() -> bool:
        found[:] = victims.processes(scene.supervisor(), part, which)
        return bool(found)

    _retry(find, PART_TIMEOUT_S, PartMissing(f"{part} is not there"))
    return found


def _broker(scene: Scene) -> int:
    _retry(lambda: _pid(scene, victims.BROKER) is not None, PART_TIMEOUT_S, PartMissing("the broker is not there"))
    return _pid(scene, victims.BROKER) or 0


def _pid(scene: Scene, name: str) -> int | None:
    return victims.pid_of(scene.supervisor(), name)


def _whole(found: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return these processes and all their descendants."""
    return [process for one in found for process in process_tree(one.pid)]


def _servers(found: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Return these and the web processes below them, without those that read videos: these may write no file at all."""
    return [process for one in found for process in web_processes(one.pid)]


def _retry(action: Callable[[], bool], timeout_s: float, otherwise: Exception) -> None:
    """Repeat the action until it succeeds. Raises `otherwise` after the timeout."""
    if not wait_until(action, timeout_s):
        raise otherwise
