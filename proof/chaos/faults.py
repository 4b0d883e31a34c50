"""The faults: each a context manager that does harm and heals it on its way out.

They are named in `FAULTS`; `schedule` says which comes when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Protocol

import psutil

from flixtrail.local.supervisor import Supervisor, tree
from proof.chaos import victims
from proof.chaos.broker import TOO_LITTLE_MEMORY, USUAL_MEMORY, BrokerInContainer, PrivateBroker
from proof.chaos.proxy import ProxyProcess
from proof.chaos.schedule import Planned

#: A part that was hit a moment ago may be between two lives.
THERE_S = 10
#: A node that was killed needs up to ten seconds, more beside everything else.
HEAL_S = 60
LOOK_EVERY_S = 0.1
#: Frozen for this long a worker gets messages from the broker that it cannot answer for; then it is killed.
HOLDING_S = 1.0
#: The largest file that a web process may write while its disk is full. What it needs to live fits: the files of its
#: metrics have exactly this size, and SQLite's log outgrows it within a few commits.
FILE_BYTES = 64 * 1024


class Views(Protocol):
    """What a fault asks of the client; `load.Load` is the real one."""

    def poison(self, n: int) -> None: ...
    def killers(self, n: int, kind: str) -> None: ...
    def duplicates(self, on: bool) -> None: ...  # noqa: FBT001 (a switch)
    def clock_skew(self, seconds: float) -> None: ...
    def erase_one(self, erase: Callable[[str], None]) -> None: ...


@dataclass(frozen=True)
class Scene:
    """All that a fault may touch. `erase` forgets a viewer, as an operator does it."""

    supervisor: Callable[[], Supervisor]  #: a new one each time: it is for one thread
    broker: PrivateBroker | BrokerInContainer
    proxy: ProxyProcess
    views: Views
    erase: Callable[[str], None]


class NotHealed(Exception):
    """A fault could not be taken back: the rest of the run proves nothing."""


class NobodyThere(Exception):
    """The part that was to be hit has not been there for THERE_S. The fault did not happen."""


Fault = Callable[..., AbstractContextManager[None]]
FAULTS: dict[str, Fault] = {}
_WORDS: dict[str, str] = {}


def fault(name: str, words: str) -> Callable[[Callable[..., Iterator[None]]], Fault]:
    """Make a fault known under its name; `words` describe it, with its parameters in braces."""

    def known(act: Callable[..., Iterator[None]]) -> Fault:
        FAULTS[name] = contextmanager(act)
        _WORDS[name] = words
        return FAULTS[name]

    return known


def describe(planned: Planned) -> str:
    """One line for a person."""
    told = {name: " and ".join(v) if isinstance(v, tuple) else v for name, v in planned.parameters.items()}
    return _WORDS[planned.name].format_map(told)


def happen(scene: Scene, planned: Planned) -> AbstractContextManager[None]:
    """The fault, ready to be entered. Entering raises NobodyThere, leaving NotHealed."""
    return FAULTS[planned.name](scene, **planned.parameters)


# -- parts ----------------------------------------------------------------------------------------------


@fault("kill", "{part}: SIGKILL")
def _kill(scene: Scene, part: str, which: int = 0, holding: bool = False) -> Iterator[None]:  # noqa: FBT001, FBT002
    if part == "broker":
        scene.broker.kill(_broker(scene))
    elif part == "everything":
        found = victims.processes(scene.supervisor(), part, which)
        scene.broker.kill(_broker(scene))
        victims.kill(found)
    else:
        found = _there(scene, part, which)
        # All of a worker, so that it gets more messages and acknowledges none.
        frozen = _whole(found) if holding and part.startswith("worker") else []
        victims.freeze(frozen)
        if frozen:
            sleep(HOLDING_S)
        victims.kill(found)
        victims.thaw(frozen)
    yield  # the supervisor heals it


@fault("freeze", "{part}: SIGSTOP")
def _freeze(scene: Scene, part: str, which: int = 0) -> Iterator[None]:
    broker = _broker(scene) if part in {"broker", "everything"} else None
    found = [] if part == "broker" else _there(scene, part, which)
    if part == "web-main":
        found = _whole(found)  # alone, it does nothing that could be missed
    victims.freeze(found)
    if broker:
        scene.broker.freeze(broker)
    try:
        yield
    finally:
        if broker:
            scene.broker.thaw(broker)
        victims.thaw(found)


@fault("down", "{part}: down, and not started again")
def _down(scene: Scene, part: str) -> Iterator[None]:
    name = victims.BROKER if part == "broker" else victims.DATABASE
    # First it is told not to come back, then killed.
    scene.supervisor().stop(name)
    if part == "broker":
        scene.broker.kill(_pid(scene, name) or 0)
    else:
        victims.kill(tree(_pid(scene, name)))
    try:
        yield
    finally:
        scene.supervisor().start(name)


@fault("memory-alarm", "broker: out of memory")
def _memory_alarm(scene: Scene) -> Iterator[None]:
    # A node that does not answer, because it was just killed, is asked again.
    _insist(lambda: scene.broker.set_memory(*TOO_LITTLE_MEMORY), THERE_S, NobodyThere("the broker does not answer"))
    try:
        yield
    finally:
        _insist(lambda: scene.broker.set_memory(*USUAL_MEMORY), HEAL_S, NotHealed("the broker's memory alarm stays"))


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
    found = _whole(_there(scene, "web-main", 0))
    usual = _file_limit(found[0])
    _limit_files(found, (FILE_BYTES, usual[1]))
    scene.proxy.cut("web-broker")
    try:
        yield
    finally:
        scene.proxy.heal("web-broker")
        # Also those that were started meanwhile, and inherited it.
        _limit_files([*found, *_whole(victims.processes(scene.supervisor(), "web-main", 0))], usual)


def _file_limit(process: psutil.Process) -> tuple[int, int]:
    try:
        return process.rlimit(psutil.RLIMIT_FSIZE)
    except psutil.NoSuchProcess:
        raise NobodyThere("the streaming app is gone again") from None


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


# -- finding the victims --------------------------------------------------------------------------------------


def _there(scene: Scene, part: str, which: int) -> list[psutil.Process]:
    found: list[psutil.Process] = []

    def look() -> bool:
        found[:] = victims.processes(scene.supervisor(), part, which)
        return bool(found)

    _insist(look, THERE_S, NobodyThere(f"{part} is not there"))
    return found


def _broker(scene: Scene) -> int:
    _insist(lambda: _pid(scene, victims.BROKER) is not None, THERE_S, NobodyThere("the broker is not there"))
    return _pid(scene, victims.BROKER) or 0


def _pid(scene: Scene, name: str) -> int | None:
    return victims.pid_of(scene.supervisor(), name)


def _whole(found: Sequence[psutil.Process]) -> list[psutil.Process]:
    """These processes and all below them."""
    return [process for one in found for process in tree(one.pid)]


def _insist(action: Callable[[], bool], deadline_s: float, otherwise: Exception) -> None:
    """Until it works. Raises `otherwise` past the deadline."""
    deadline = monotonic() + deadline_s
    while not action():
        if monotonic() > deadline:
            raise otherwise
        sleep(LOOK_EVERY_S)
