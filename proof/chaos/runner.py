"""One run: starts everything, sends views while the faults happen, waits until all is quiet, and judges the result."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from types import FrameType
from urllib.request import Request

from kombu.message import Message

from local import view_counts
from local.errors import Interrupted
from local.state import State
from local.supervisor import Supervisor
from proof.chaos import invariants, report
from proof.chaos.faults import Scene
from proof.chaos.found import dead_letter
from proof.chaos.invariants import Violation
from proof.chaos.ledger import WATCHED_IN_A_BROWSER
from proof.chaos.load import Load
from proof.chaos.page import BrowserViewer, own_video
from proof.chaos.player import FaultRecord, FaultRunner
from proof.chaos.proxy import ProxyProcess
from proof.chaos.queues import Queues
from proof.chaos.schedule import Planned, one_outage, schedule
from proof.chaos.screen import Screen
from proof.chaos.settings import ChaosSettings
from proof.chaos.stack import ROOT, WEB_PROCESSES, WORKERS, ChaosStack
from proof.chaos.versions import commit, servers
from proof.chaos.watching import LearnerRedeliveries, Measurement, Redeliveries, Sampler
from service.waiting import wait_until
from streaming_app.access.auth import Tokens
from streaming_app.recording.outbox import waiting_in
from streaming_app.videos.samples import samples

#: Seconds after the last fault for events without a 202: they are sent again until they get one.
FINISH_S = 60
#: Seconds since the last event was stored, for queues and outboxes to become empty and everything to be right.
SETTLE_TIMEOUT_S = 120
#: Number of checks in a row that must find everything quiet, because some of the figures are a second old.
QUIET_CHECKS = 3
POLL_INTERVAL_S = 1.0
#: With fewer, a run proves little.
LEAST_ACCEPTED_A_MINUTE = 2_000
#: Seconds for which `flixtrail erase` is repeated, as an operator does while the database is away.
ERASE_TIMEOUT_S = 120
#: Problems shown in the report.
PROBLEMS = 50
#: Seconds for the history. A page waits for it for one second (streaming_app/history_client.py).
HISTORY_S = 3


@dataclass
class Outcome:
    """The result of a run. `complaints`: what is wrong besides the violations."""

    seed: int
    accepted: int
    stored: int
    violations: list[Violation]
    dead: int
    poison: int
    redelivered: int
    happened: list[FaultRecord]
    complaints: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.violations and not self.complaints

    @property
    def problems(self) -> list[str]:
        """Return all reasons why the run did not pass."""
        return [*(f"{one.kind}: {one.id} {one.text}" for one in self.violations), *self.complaints]

    @property
    def last_line(self) -> str:
        kinds = [violation.kind for violation in self.violations]
        return (
            f"chaos: accepted={self.accepted} stored={self.stored} lost={kinds.count('lost')} "
            f"duplicated={kinds.count('duplicated')} dead={self.dead} poison={self.poison} "
            f"redelivered={self.redelivered} faults={len(self.happened)} seed={self.seed}"
        )


def run(settings: ChaosSettings, screen: Screen) -> Outcome:
    """Run once, in a folder of its own. The folder stays if something was wrong.

    Raises DemoError if the stack does not start, Interrupted on Ctrl-C.
    """
    chaos = settings.state.resolve() / "chaos"
    chaos.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"seed-{settings.seed}-", dir=chaos))
    folder.chmod(0o755)  # PostgreSQL does not run as root and must get in
    videos = samples(chaos)
    if settings.browser:
        videos = shutil.copytree(videos, folder / "videos")
        own_video(max(videos.glob("*.mp4")), videos)
    state = State(folder)
    try:
        with state.lock(), ProxyProcess() as proxy:
            stack = ChaosStack(state, videos, proxy, settings.broker_image, settings.broker)
            with _interruptible(stack) as stopped, _running(stack, screen):
                outcome = Run(settings, stack, proxy, screen, stopped).run(chaos / f"report-seed-{settings.seed}.html")
    except Interrupted:
        shutil.rmtree(folder)
        raise
    except BaseException:
        screen.say(f"everything is left in {folder}")
        raise
    if outcome.passed:
        shutil.rmtree(folder)
    else:
        screen.say(f"data, logs and outboxes are left in {folder}")
    return outcome


@contextmanager
def _interruptible(stack: ChaosStack) -> Iterator[threading.Event]:
    """Inside the block, Ctrl-C and SIGTERM set the event."""
    stopped = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()
        stack.ask_to_stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _running(stack: ChaosStack, screen: Screen) -> Iterator[None]:
    """Inside the block, the stack runs, and parts that die are restarted."""
    monitor = threading.Thread(target=stack.watch, name="guard", daemon=True)
    stack.end_leftovers()
    try:
        with screen.live_line("starting PostgreSQL, the broker, the streaming app, the history API, workers"):
            stack.start()
        monitor.start()
        yield
    finally:
        stack.ask_to_stop()
        if monitor.is_alive():
            monitor.join()
        with screen.live_line("stopping"):
            stack.stop()


class Run:
    """A run with a stack that is up."""

    def __init__(
        self, settings: ChaosSettings, stack: ChaosStack, proxy: ProxyProcess, screen: Screen, stopped: threading.Event
    ) -> None:
        self._settings = settings
        self._stack = stack
        self._state = stack.state
        self._screen = screen
        self._stopped = stopped
        self._queues = Queues(stack.broker_url, stack.queue)
        self._load = Load(
            stack.addresses.web_url,
            self._state.secret("secret_key"),
            seed=settings.seed,
            rate=settings.rate,
            broker_url=stack.broker_url,
            excluded_video=WATCHED_IN_A_BROWSER,
        )
        self._page: BrowserViewer | None = None
        if settings.browser:
            self._page = BrowserViewer(stack.page_url, stack.videos / f"{WATCHED_IN_A_BROWSER}.mp4", settings.seed)
        scene = Scene(lambda: Supervisor(self._state), stack.broker, proxy, self._load, self._erase, self._page)
        self._player = FaultRunner(scene, self._plan(), screen.fault, stopped)
        self._waits_for = "views flow"
        self._commit = commit()
        self._dead: list[Message] = []

    def _plan(self) -> list[Planned]:
        if self._settings.faults == "all":
            settings = self._settings
            return schedule(
                settings.seed, settings.seconds, learner_mode=settings.learner_mode, browser=settings.browser
            )
        return one_outage(self._settings.faults.removesuffix("_down"), self._settings.seconds)

    def run(self, path: Path) -> Outcome:
        """Run until the verdict. Writes the report to `path`. Raises Interrupted."""
        with Sampler(self._measurements()) as watch, self._screen.live_line("views flow"), self._showing(watch):
            self._load.start()
            if self._page:
                self._page.start()
            self._player.play(self._settings.seconds)
            self._set_phase("the last answers")
            self._load.finish(FINISH_S)
            if self._page:
                self._page.finish()
                self._screen.say(f"page: {self._page.summary()}")
            self._set_phase("empty queues")
            left, violations = self._settle()
        outcome = self._judge(watch, left, violations)
        report.write(
            path,
            watch.samples,
            outcome.happened,
            outcome.last_line,
            problems=outcome.problems[:PROBLEMS],
            commit=self._commit,
            versions=servers(self._stack.broker_url, self._stack.database_url),
        )
        self._screen.say(f"report: {path}")
        return outcome

    def _measurements(self) -> dict[str, Measurement]:
        history = view_counts.History(self._stack.database_url)
        queues = Queues(self._stack.broker_url, self._stack.queue)
        return {
            "accepted": lambda: self._load.sample()["accepted"],
            "pending": lambda: self._load.sample()["pending"],
            "stored": history.stored,
            "queue": queues.waiting,
            "outbox": lambda: waiting_in(self._state.outbox),
            "redelivered": self._redeliveries().count,
            "history ms": self._history_latency_ms,
        }

    def _redeliveries(self) -> Redeliveries | LearnerRedeliveries:
        if self._settings.learner_mode:
            return LearnerRedeliveries(self._stack.broker_url)
        return Redeliveries(self._state.logs)

    def _history_latency_ms(self) -> float:
        """Return how many milliseconds a viewer waits for the history. Raises OSError if the history is away."""
        token = Tokens(self._state.secret("secret_key")).viewer("somebody")
        request = Request(f"{self._stack.addresses.web_url}/api/history", headers={"Authorization": f"Bearer {token}"})  # noqa: S310
        began = monotonic()
        with view_counts.DIRECT.open(request, timeout=HISTORY_S) as answer:
            answer.read()
        return (monotonic() - began) * 1000

    @contextmanager
    def _showing(self, watch: Sampler) -> Iterator[None]:
        """Inside the block, the figures are on the screen."""
        done = threading.Event()

        def show() -> None:
            while not done.wait(POLL_INTERVAL_S):
                self._screen.show(watch.now(), self._waits_for)

        thread = threading.Thread(target=show, name="screen", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _set_phase(self, waits_for: str) -> None:
        if self._stopped.is_set():
            raise Interrupted("stopped: no verdict")
        self._waits_for = f"waiting for {waits_for}"

    def _erase(self, viewer: str) -> None:
        """Erase a viewer with the command line, as an operator does."""
        argv = [sys.executable, "-m", "flixtrail", "erase", viewer, "--yes", "--state", str(self._state.folder)]
        done: subprocess.CompletedProcess[str] | None = None

        def attempt() -> subprocess.CompletedProcess[str] | None:
            nonlocal done
            done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
            return done if done.returncode == 0 or self._stopped.is_set() else None

        wait_until(attempt, ERASE_TIMEOUT_S, poll_interval_s=POLL_INTERVAL_S)
        if done is None or done.returncode:
            raise RuntimeError(f"flixtrail erase {viewer}: {done.stderr if done else 'not tried'}")

    # -- the end --------------------------------------------------------------------------------------------

    def _settle(self) -> tuple[list[str], list[Violation]]:
        """Wait until all is quiet and right. What is not right SETTLE_TIMEOUT_S after the last event was stored
        is the verdict.
        """
        deadline, quiet, stored = monotonic() + SETTLE_TIMEOUT_S, 0, 0
        history = view_counts.History(self._stack.database_url)
        while True:
            left = self._left()
            quiet = 0 if left else quiet + 1
            # After ten minutes without a database, the backlog takes a while. So wait as long as it shrinks.
            if (now := history.stored() or 0) > stored:
                deadline, stored = monotonic() + SETTLE_TIMEOUT_S, now
            too_late = monotonic() > deadline
            if quiet >= QUIET_CHECKS or too_late:
                violations = self._check()
                if too_late or not violations:
                    return left, violations
                # A message may be where no figure counts it, for example while a worker tries it alone.
                quiet = 0
            self._set_phase(", ".join(left) or "everything to be right")
            sleep(POLL_INTERVAL_S)

    def _left(self) -> list[str]:
        """Return what is not yet as it was before the first fault."""
        left = [name for name, part in Supervisor(self._state).status().items() if not part.running]
        if pending := self._load.sample()["pending"]:
            left.append(f"{pending} events not accepted")
        if view_counts.connected_processes(self._stack.addresses.web_url) < WEB_PROCESSES:
            left.append("a web process without a broker")
        try:
            if events := waiting_in(self._state.outbox):
                left.append(f"{events} events in outboxes")
            if (consumers := self._queues.consumers()) < WORKERS:
                left.append(f"{WORKERS - consumers} workers that do not consume")
            if messages := self._queues.waiting():
                left.append(f"{messages} messages in queues")
        except Exception as error:  # noqa: BLE001 (whatever cannot be asked is not quiet)
            left.append(f"{type(error).__name__}: {error}")
        return left

    def _check(self) -> list[Violation]:
        try:
            self._dead = self._queues.dead_letters()
            found = invariants.check(self._load.ledger, self._stack.database_url, self._dead, self._state.folder)
            return found + (self._page.violations() if self._page else [])
        except Exception as error:  # noqa: BLE001 (whatever cannot be read proves nothing)
            return [Violation("unknown", "", f"{type(error).__name__}: {error}")]

    def _judge(self, watch: Sampler, left: list[str], violations: list[Violation]) -> Outcome:
        ledger = self._load.ledger
        # Without those that an erase may have deleted; `invariants` checks these.
        expected = [event_id for event_id, event in ledger.accepted.items() if event.viewer_id not in ledger.erased]
        stored = view_counts.History(self._stack.database_url).stored_of(expected)
        redelivered = max((sample["redelivered"] or 0 for sample in watch.samples), default=0)
        complaints = [*self._player.failures, *(self._page.complaints() if self._page else [])]
        complaints += [f"after {SETTLE_TIMEOUT_S} s still: {what}" for what in left]
        complaints += [f"refused with {answer}: {event_id}" for event_id, answer in ledger.refused.items()]
        least = LEAST_ACCEPTED_A_MINUTE * self._settings.minutes
        if len(ledger.accepted) < least:
            complaints.append(f"only {len(ledger.accepted):,} events were accepted; a run needs {least:,.0f}")
        if not redelivered and self._settings.faults == "all":
            complaints.append("nothing was delivered again")
        return Outcome(
            seed=self._settings.seed,
            accepted=len(expected),
            stored=stored or 0,
            violations=violations,
            dead=invariants.distinct(ledger, [dead_letter(message) for message in self._dead]),
            poison=len(ledger.deadly),
            redelivered=int(redelivered),
            happened=self._player.happened,
            complaints=complaints,
        )
