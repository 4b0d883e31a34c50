"""One run: start everything, let views flow while the faults happen, wait until all is quiet, and judge."""

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
from urllib.request import Request, urlopen

from kombu.message import Message

from flixtrail.local import counts
from flixtrail.local.errors import Interrupted
from flixtrail.local.state import State
from flixtrail.local.supervisor import Supervisor
from proof.chaos import invariants, report
from proof.chaos.faults import Scene
from proof.chaos.found import dead_letter
from proof.chaos.invariants import Violation
from proof.chaos.load import Load
from proof.chaos.player import Happened, Player
from proof.chaos.proxy import ProxyProcess
from proof.chaos.queues import Queues
from proof.chaos.schedule import Planned, one_outage, schedule
from proof.chaos.screen import Screen
from proof.chaos.settings import ChaosSettings
from proof.chaos.stack import ROOT, WEB_PROCESSES, WORKERS, ChaosStack
from proof.chaos.versions import commit, servers
from proof.chaos.watching import Question, Redeliveries, Watch
from streaming_app.auth import Tokens
from streaming_app.outbox import waiting_in
from streaming_app.samples import samples

#: What was sent and not answered 202 is sent again, after the last fault, until it is.
FINISH_S = 60
#: For queues and outboxes to become empty and everything right, since the last event was stored.
SETTLE_S = 120
#: All must have been quiet for so many looks: some of the figures are a second old.
QUIET_LOOKS = 3
LOOK_EVERY_S = 1.0
#: With fewer, a run proves little.
LEAST_ACCEPTED_A_MINUTE = 2_000
#: An operator whose `flixtrail erase` fails, since the database is away just now, tries again.
ERASE_S = 120
#: Shown in the report.
PROBLEMS = 50
#: A page waits for the history for a second (streaming_app/history_client.py).
HISTORY_S = 3


@dataclass
class Outcome:
    """What came out of a run. `complaints` are what is wrong with it besides the violations."""

    seed: int
    accepted: int
    stored: int
    violations: list[Violation]
    dead: int
    poison: int
    redelivered: int
    happened: list[Happened]
    complaints: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.violations and not self.complaints

    @property
    def problems(self) -> list[str]:
        """All that it did not pass for, in words."""
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
    """One run, in a folder of its own, which stays where something was wrong.

    Raises DemoError when the stack does not come up, Interrupted on Ctrl-C.
    """
    chaos = settings.state.resolve() / "chaos"
    chaos.mkdir(parents=True, exist_ok=True)
    videos = samples(chaos)
    folder = Path(tempfile.mkdtemp(prefix=f"seed-{settings.seed}-", dir=chaos))
    folder.chmod(0o755)  # PostgreSQL does not run as root
    state = State(folder)
    try:
        with state.lock(), ProxyProcess() as proxy:
            stack = ChaosStack(state, videos, proxy, settings.broker_image)
            with _interruptible(stack) as stopped, _running(stack, screen):
                outcome = Run(settings, stack, proxy, screen, stopped).go(chaos / f"report-seed-{settings.seed}.html")
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
    """Within, Ctrl-C and SIGTERM set the event."""
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
    """Within, the stack runs, and what dies is started again."""
    guard = threading.Thread(target=stack.watch, name="guard", daemon=True)
    stack.clear()
    try:
        with screen.moving("starting RabbitMQ, PostgreSQL, streaming app, history API, workers"):
            stack.start()
        guard.start()
        yield
    finally:
        stack.ask_to_stop()
        if guard.is_alive():
            guard.join()
        with screen.moving("stopping"):
            stack.stop()


class Run:
    """What happens once the stack is up."""

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
        )
        scene = Scene(lambda: Supervisor(self._state), stack.broker, proxy, self._load, self._erase)
        self._player = Player(scene, self._plan(), screen.fault, stopped)
        self._waits_for = "views flow"
        self._commit = commit()
        self._dead: list[Message] = []

    def _plan(self) -> list[Planned]:
        if self._settings.faults == "all":
            return schedule(self._settings.seed, self._settings.seconds)
        return one_outage(self._settings.faults.removesuffix("_down"), self._settings.seconds)

    def go(self, path: Path) -> Outcome:
        """To the verdict; the report is written to `path`. Raises Interrupted."""
        with Watch(self._questions()) as watch, self._screen.moving("views flow"), self._shown(watch):
            self._load.start()
            self._player.play(self._settings.seconds)
            self._go_on("the last answers")
            self._load.finish(FINISH_S)
            self._go_on("empty queues")
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

    def _questions(self) -> dict[str, Question]:
        history = counts.History(self._stack.database_url)
        queues = Queues(self._stack.broker_url, self._stack.queue)
        return {
            "accepted": lambda: self._load.sample()["accepted"],
            "pending": lambda: self._load.sample()["pending"],
            "stored": history.stored,
            "queue": queues.waiting,
            "outbox": lambda: waiting_in(self._state.outbox),
            "redelivered": Redeliveries(self._state.logs).count,
            "history ms": self._look_at_history,
        }

    def _look_at_history(self) -> float:
        """How long somebody waits who looks at what they have watched. Raises OSError when the history is away."""
        token = Tokens(self._state.secret("secret_key")).viewer("somebody")
        request = Request(f"{self._stack.addresses.web_url}/api/history", headers={"Authorization": f"Bearer {token}"})  # noqa: S310
        began = monotonic()
        with urlopen(request, timeout=HISTORY_S) as answer:  # noqa: S310 (our own http:// address)
            answer.read()
        return (monotonic() - began) * 1000

    @contextmanager
    def _shown(self, watch: Watch) -> Iterator[None]:
        """Within, the figures are on the screen."""
        done = threading.Event()

        def show() -> None:
            while not done.wait(LOOK_EVERY_S):
                self._screen.show(watch.now(), self._waits_for)

        thread = threading.Thread(target=show, name="screen", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _go_on(self, waits_for: str) -> None:
        if self._stopped.is_set():
            raise Interrupted("stopped: no verdict")
        self._waits_for = f"waiting for {waits_for}"

    def _erase(self, viewer: str) -> None:
        """As an operator does it."""
        argv = [sys.executable, "-m", "flixtrail", "erase", viewer, "--yes", "--state", str(self._state.folder)]
        deadline = monotonic() + ERASE_S
        while True:
            done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode == 0:
                return
            if monotonic() > deadline or self._stopped.is_set():
                raise RuntimeError(f"flixtrail erase {viewer}: {done.stderr}")
            sleep(LOOK_EVERY_S)

    # -- the end --------------------------------------------------------------------------------------------

    def _settle(self) -> tuple[list[str], list[Violation]]:
        """Wait until all is quiet and right. What is not so SETTLE_S after the last event was stored is the verdict."""
        deadline, quiet, stored = monotonic() + SETTLE_S, 0, 0
        history = counts.History(self._stack.database_url)
        while True:
            left = self._left()
            quiet = 0 if left else quiet + 1
            # What ten minutes without a database have left in the queue may take a while: as long as it gets less.
            if (now := history.stored() or 0) > stored:
                deadline, stored = monotonic() + SETTLE_S, now
            too_late = monotonic() > deadline
            if quiet >= QUIET_LOOKS or too_late:
                violations = self._check()
                if too_late or not violations:
                    return left, violations
                # A message may be on its way where nobody counts: a worker tries it alone, for example.
                quiet = 0
            self._go_on(", ".join(left) or "everything to be right")
            sleep(LOOK_EVERY_S)

    def _left(self) -> list[str]:
        """What is not yet as it was before the first fault."""
        left = [name for name, part in Supervisor(self._state).status().items() if not part.running]
        if pending := self._load.sample()["pending"]:
            left.append(f"{pending} events not accepted")
        if counts.connected_processes(self._stack.addresses.web_url) < WEB_PROCESSES:
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
            return invariants.check(self._load.ledger, self._stack.database_url, self._dead, self._state.folder)
        except Exception as error:  # noqa: BLE001 (whatever cannot be read proves nothing)
            return [Violation("unknown", "", f"{type(error).__name__}: {error}")]

    def _judge(self, watch: Watch, left: list[str], violations: list[Violation]) -> Outcome:
        ledger = self._load.ledger
        # Less what an erase may have taken away: `invariants` looks after that.
        expected = [event_id for event_id, event in ledger.accepted.items() if event.viewer_id not in ledger.erased]
        stored = counts.History(self._stack.database_url).stored_of(expected)
        redelivered = max((sample["redelivered"] or 0 for sample in watch.samples), default=0)
        complaints = [*self._player.failures, *(f"after {SETTLE_S} s still: {what}" for what in left)]
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
